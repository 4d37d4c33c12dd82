"""One run in three loops: the plain one of the documentation, Lightning's and Hugging Face's, over equal batches in equal order."""

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import transformers
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models.resnet import BasicBlock

from rekindle import DataPasses, Direction, Tuner
from rekindle.integrations import lightning as for_lightning
from rekindle.integrations import transformers as for_transformers
from rekindle.registry import parse
from tests.toys import toy

CE = nn.functional.cross_entropy
SIZE, CLASSES = 4, 3
State = dict[str, Tensor]


class Convolutions(nn.Module):
    """A residual block of torchvision between a stem and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.layer1 = BasicBlock(4, 4)
        self.fc = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer1(self.stem(x)).mean((2, 3)))


def convolutions(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Convolutions()


def dropout(seed: int = 0) -> nn.Module:
    """The toy with dropout of its own, whose masks come from torch's default generator."""
    model = toy(seed, CLASSES, norm=True)
    model.body.append(nn.Dropout(0.3))  # type: ignore[operator, union-attr]
    return model


NETWORKS: dict[str, tuple[Callable[[int], nn.Module], tuple[int, ...]]] = {
    "toy": (lambda seed: toy(seed, CLASSES, norm=True), (4,)),
    "dropout": (dropout, (4,)),
    "convolutions": (convolutions, (3, 6, 6)),
}


class Samples(Dataset[dict[str, Tensor]]):
    """Noise with labels; each sample knows its position."""

    def __init__(self, count: int, shape: tuple[int, ...]) -> None:
        stream = torch.Generator().manual_seed(1)
        self.x = torch.randn(count, *shape, generator=stream)
        self.y = torch.randint(CLASSES, (count,), generator=stream)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index], "labels": self.y[index], "indices": torch.tensor(index)}


@dataclass
class Setting:
    """A run.

    Attributes:
        recipe: Methods.
        direction: None is the plain sum.
        network: A key of `NETWORKS`.
        accumulate: Micro-batches a step.
        steps: Optimiser steps an epoch.
        epochs: Of the run.
        optimizer: From `torch.optim`.
        lr: Base learning rate.
        head_lr: That of the head.
    """

    recipe: str = "none"
    direction: Direction | None = None
    network: str = "toy"
    accumulate: int = 1
    steps: int = 3
    epochs: int = 4
    optimizer: str = "SGD"
    lr: float = 0.05
    head_lr: float | str = "tied"
    samples: Samples = field(init=False)

    def __post_init__(self) -> None:
        self.samples = Samples(self.steps * self.accumulate * SIZE, NETWORKS[self.network][1])

    def build(self, seed: int = 0) -> tuple[nn.Module, Tuner]:
        """The network, drawn from another seed where a resume must not depend on it, and its tuner."""
        torch.manual_seed(7)
        model = NETWORKS[self.network][0](seed)
        options = {"direction": copy.deepcopy(self.direction), "epochs": self.epochs, "steps_per_epoch": self.steps, "seed": 3}
        return model, Tuner(model, parse(self.recipe), head="fc", **options)  # type: ignore[arg-type]

    def make_optimizer(self, tuner: Tuner) -> torch.optim.Optimizer:
        more = {"momentum": 0.9} if self.optimizer == "SGD" else {}
        return getattr(torch.optim, self.optimizer)(tuner.param_groups(self.lr, self.head_lr), **more)

    @property
    def data(self) -> DataPasses:
        """Passes for methods that look at data, over the samples and over two batches of others."""

        def held_out() -> Iterator[tuple[Tensor, Tensor]]:
            stream = torch.Generator().manual_seed(2)
            return ((torch.randn(SIZE, *NETWORKS[self.network][1], generator=stream), torch.arange(SIZE) % CLASSES) for _ in range(2))

        return DataPasses(lambda: zip(self.samples.x.split(SIZE), self.samples.y.split(SIZE), strict=True), held_out=held_out)


class Killed(Exception):
    """The process ends here."""


class Order:
    """Batches of indices, another order each epoch, keyed by the epoch and not by how often it was asked for."""

    def __init__(self, count: int) -> None:
        self.count, self.epoch = count, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count // SIZE

    def __iter__(self) -> Iterator[list[int]]:
        yield from torch.randperm(self.count, generator=torch.Generator().manual_seed(self.epoch)).view(-1, SIZE).tolist()


def plain(setting: Setting, clip: float = 0.0) -> State:
    """The loop of the documentation."""
    model, tuner = setting.build()
    optimizer = setting.make_optimizer(tuner)
    scheduler = tuner.scheduler(optimizer)
    tuner.prepare(setting.data)
    order = Order(len(setting.samples))
    for epoch in range(tuner.epochs):
        tuner.start_epoch(epoch)
        order.set_epoch(epoch)
        for number, rows in enumerate(order):
            x, y, indices = setting.samples.x[rows], setting.samples.y[rows], torch.tensor(rows)
            (tuner.loss(model, x, y, CE, indices=indices) / setting.accumulate).backward()
            if (number + 1) % setting.accumulate == 0:
                tuner.gradients_()
                if clip:
                    nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
        scheduler.step()
    return model.state_dict()


class Loader(DataLoader[Any]):
    """The batches of `Order`; it leaves torch's default generator alone, as the plain loop does."""

    def __init__(self, samples: Samples) -> None:
        super().__init__(samples, batch_sampler=Order(len(samples)), generator=torch.Generator())  # type: ignore[arg-type]

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


class Resumable:
    """A loader for Lightning that goes on in the midst of an epoch, as torchdata's StatefulDataLoader does."""

    def __init__(self, samples: Samples) -> None:
        self.samples, self.order = samples, Order(len(samples))
        self.sampler = self.order  # Lightning calls its set_epoch.
        self._next = 0
        self._first = 0

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        first, self._first = self._first, 0
        for number, rows in enumerate(self.order):
            if number >= first:
                self._next = number + 1
                yield {"x": self.samples.x[rows], "labels": self.samples.y[rows], "indices": torch.tensor(rows)}

    def state_dict(self) -> dict[str, int]:
        return {"next": self._next % len(self), "epoch": self.order.epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._first = state["next"]
        self.order.set_epoch(state["epoch"])


class Module(pl.LightningModule):
    """What a user writes."""

    def __init__(self, setting: Setting, model: nn.Module, tuner: Tuner) -> None:
        super().__init__()
        self.setting, self.model, self.tuner = setting, model, tuner

    def training_step(self, batch: dict[str, Tensor], number: int) -> Tensor:
        return self.tuner.loss(self.model, batch["x"], batch["labels"], CE, indices=batch["indices"])

    def validation_step(self, batch: dict[str, Tensor], number: int) -> None:
        self.model(batch["x"])

    def configure_optimizers(self) -> Any:
        optimizer = self.setting.make_optimizer(self.tuner)
        return [optimizer], [self.tuner.scheduler(optimizer)]


class KillLightning(pl.Callback):
    """End the process after an optimiser step, checkpoints written."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise Killed


def lightning(
    setting: Setting, folder: Path | None = None, kill: int = 0, save: int = 0, resume: Path | None = None, **options: Any
) -> State:
    """Lightning's Trainer.

    Args:
        setting: The run.
        folder: For checkpoints.
        kill: Optimiser step before which the process ends; 0 is never.
        save: A checkpoint every so many steps; 0 is at the end of each epoch.
        resume: The checkpoint to go on from.
        options: For the Trainer.
    """
    model, tuner = setting.build(seed=9 if resume else 0)
    callbacks: list[pl.Callback] = [for_lightning.TunerCallback(tuner, setting.data)]
    if folder:
        every = {"every_n_train_steps": save} if save else {"every_n_epochs": 1, "save_on_train_epoch_end": True}
        callbacks.append(ModelCheckpoint(folder, filename="{step}", save_top_k=-1, **every))  # type: ignore[arg-type]
    if kill:
        callbacks.append(KillLightning(kill))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": folder is not None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(**{"accelerator": "cpu", "max_epochs": tuner.epochs, "accumulate_grad_batches": setting.accumulate,
                                "callbacks": callbacks, **quiet, **options})  # fmt: skip
        validation = Loader(setting.samples) if "check_val_every_n_epoch" in options else None
        trainer.fit(Module(setting, model, tuner), Resumable(setting.samples), validation, ckpt_path=resume)
    return model.state_dict()


class KillTransformers(transformers.TrainerCallback):
    """As `KillLightning`."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: transformers.TrainerState, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            raise Killed


class Trainer(transformers.Trainer):
    """With that loader."""

    def get_train_dataloader(self) -> Loader:
        return Loader(self.train_dataset)  # type: ignore[arg-type]

    def get_eval_dataloader(self, *_: Any) -> Loader:
        return Loader(self.eval_dataset)  # type: ignore[arg-type]


class Wrapped(nn.Module):
    """Around a plain network: takes the batch's columns by name and returns what the Trainer's evaluation reads."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.model(x)}


def hugging_face(
    setting: Setting,
    folder: Path,
    kill: int = 0,
    save: int = 0,
    resume: Path | None = None,
    max_norm: float = 0.0,
    wrap: bool = True,
    **options: Any,
) -> State:
    """The Hugging Face Trainer; arguments as `lightning`."""
    model, tuner = setting.build(seed=9 if resume else 0)
    callback = for_transformers.TunerCallback(tuner, setting.make_optimizer(tuner), CE, data=setting.data, max_norm=max_norm)
    arguments = {"output_dir": str(folder), "num_train_epochs": tuner.epochs, "gradient_accumulation_steps": setting.accumulate,
                 "per_device_train_batch_size": SIZE, "max_grad_norm": 0.0, "report_to": "none", "use_cpu": True, "disable_tqdm": True,
                 "remove_unused_columns": False, "save_strategy": "steps" if save else "epoch", "save_steps": save or 1, "seed": 7,
                 "logging_strategy": "no", "dataloader_pin_memory": False, "label_names": ["labels"], **options}  # fmt: skip
    trainer = Trainer(
        Wrapped(model) if wrap else model, transformers.TrainingArguments(**arguments), train_dataset=setting.samples,  # type: ignore[arg-type]
        eval_dataset=setting.samples, callbacks=[callback, *([KillTransformers(kill)] if kill else [])], optimizers=callback.optimizers,  # type: ignore[arg-type]
        compute_loss_func=callback.compute_loss,
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    return model.state_dict()


def differing(one: State, other: State) -> list[str]:
    """Names of tensors that are not equal to the bit."""
    assert one.keys() == other.keys() and all(math.isfinite(float(value.double().sum())) for value in one.values())
    return [key for key, value in one.items() if not torch.equal(value, other[key])]
