"""Lightning and the Hugging Face Trainer are the plain loop, to the bit, also after a kill and a resume."""

import copy
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import transformers
from torch import Tensor, nn

from rekindle import DTNH, Method, Rifle, Tuner
from rekindle.integrations import lightning as for_lightning
from rekindle.integrations import transformers as for_transformers
from rekindle.registry import parse
from tests.loops.loops import CE, SIZE, Killed, Module, Resumable, Setting, Trainer, differing, hugging_face, lightning, plain

pytestmark = pytest.mark.filterwarnings("ignore")
RECIPES = [
    "l2_sp(alpha=0.1)", "l2_sp_fisher", "rifle(periods=2)", "l2_sp(alpha=0.1)+rifle(periods=4, unit='step')", "layer_decay", "source_classifier",
    "attention_transfer", "soft_targets", "disturb_label(gamma=0.5)", "dropout", "mixout", "spd", "ftp", "tpgm",
]  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "accumulate"), [(recipe, accumulate) for number, recipe in enumerate(RECIPES) for accumulate in (2, 1 + 2 * (number % 2))]
)
def test_three_loops_are_one(recipe: str, accumulate: int, tmp_path: Path) -> None:
    """Each recipe with micro-batches and BatchNorm, and on a network with masks of its own with one or three of them."""
    setting = Setting(recipe, accumulate=accumulate, network="convolutions" if accumulate == 2 else "dropout")
    expected = plain(setting)
    assert differing(expected, lightning(setting)) == []
    assert differing(expected, hugging_face(setting, tmp_path)) == []


@pytest.mark.parametrize(("network", "accumulate"), [("convolutions", 2), ("dropout", 1), ("dropout", 3)])
def test_a_second_look_in_two_loops_and_a_refusal_in_the_third(network: str, accumulate: int, tmp_path: Path) -> None:
    """Hugging Face's trainer computes the outputs by itself, so nobody else can compute them again."""
    setting = Setting("sam+l2_sp(alpha=0.1)", accumulate=accumulate, network=network)
    expected = plain(setting)
    assert differing(expected, plain(Setting("l2_sp(alpha=0.1)", accumulate=accumulate, network=network))), "the second look was to matter"
    assert differing(expected, lightning(setting)) == []
    with pytest.raises(ValueError, match="sam must compute the outputs again"):
        hugging_face(setting, tmp_path)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("recipe", ["l2_sp(alpha=0.1)", "l2_sp(alpha=0.1)+attention_transfer"])
def test_directions(recipe: str, accumulate: int, tmp_path: Path) -> None:
    """Also where a penalty on activations, which passes through each micro-batch, is part of the regulariser."""
    setting = Setting(recipe, DTNH(), "convolutions", accumulate)
    expected = plain(setting)
    assert differing(expected, plain(Setting(recipe, None, "convolutions", accumulate))), "the direction was to matter"
    assert differing(expected, lightning(setting)) == []
    assert differing(expected, hugging_face(setting, tmp_path)) == []


def test_the_decoupled_penalty(tmp_path: Path) -> None:
    setting = Setting("l2_sp(alpha=0.1)", accumulate=2, optimizer="AdamW", lr=0.01)
    expected = plain(setting)
    assert differing(expected, lightning(setting)) == []
    assert differing(expected, hugging_face(setting, tmp_path)) == []


@pytest.mark.parametrize("recipe", ["rifle(periods=2)", "layer_decay", "l2_sp(alpha=0.1)"])
def test_the_rate_of_the_head(recipe: str, tmp_path: Path) -> None:
    """A rate of its own is the same in every loop, beside methods that change it in time or by layer."""
    setting = Setting(recipe, accumulate=2, head_lr="x10")
    expected = plain(setting)
    assert differing(expected, plain(Setting(recipe, accumulate=2))), "the head's rate was to matter"
    assert differing(expected, plain(Setting(recipe, accumulate=2, head_lr=0.5))) == []
    assert differing(expected, lightning(setting)) == []
    assert differing(expected, hugging_face(setting, tmp_path)) == []


def test_cautions_are_passed_on(tmp_path: Path) -> None:
    setting = Setting("rifle(periods=2)")
    said = "rifle: the head has .* steps after its last fresh draw"
    with pytest.warns(UserWarning, match=said):
        hugging_face(setting, tmp_path)
    model, tuner = setting.build()
    with pytest.warns(UserWarning, match=said):
        quiet_trainer(tuner).fit(Module(setting, model, tuner), Resumable(setting.samples))


def test_clipping_comes_after_the_penalties(tmp_path: Path) -> None:
    setting = Setting("l2_sp(alpha=5.0)", accumulate=2)
    expected = plain(setting, clip=0.1)
    assert differing(expected, plain(setting)), "gradients were to be longer than the norm"
    assert differing(expected, lightning(setting, gradient_clip_val=0.1)) == []
    assert differing(expected, hugging_face(setting, tmp_path, max_norm=0.1)) == []


def test_evaluation_changes_nothing(tmp_path: Path) -> None:
    """No label is disturbed there, no draw is spent, no micro-batch is counted; a plain network needs no wrapper to be trained."""
    setting = Setting("l2_sp(alpha=0.1)+rifle(periods=2)", accumulate=2, network="dropout")
    expected = plain(setting)
    assert differing(expected, lightning(setting, check_val_every_n_epoch=1, num_sanity_val_steps=1)) == []
    assert differing(expected, hugging_face(setting, tmp_path / "a", eval_strategy="steps", eval_steps=1)) == []
    assert differing(expected, hugging_face(setting, tmp_path / "b", wrap=False)) == []


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_network_of_transformers(accumulate: int, tmp_path: Path) -> None:
    """It returns an object, takes its input by a name of its own, and is judged by the criterion alone."""
    shape = {"embedding_size": 4, "hidden_sizes": [4, 4], "depths": [1, 1], "layer_type": "basic", "num_labels": 3}
    torch.manual_seed(0)
    model = transformers.ResNetForImageClassification(transformers.ResNetConfig(**shape))
    twin = copy.deepcopy(model)
    count = 2 * accumulate * SIZE
    x, y = torch.randn(count, 3, 32, 32), torch.arange(count) % 3
    recipe = "l2_sp+rifle(periods=2)+soft_targets+disturb_label(gamma=0.5)"
    tuner = Tuner(twin, parse(recipe), epochs=2, steps_per_epoch=2)
    optimizer = torch.optim.SGD(tuner.param_groups(0.05))
    scheduler = tuner.scheduler(optimizer)
    for epoch in range(2):
        tuner.start_epoch(epoch)
        for step, rows in enumerate(torch.arange(count).split(SIZE), 1):
            (tuner.loss(twin, x[rows], y[rows], CE, indices=rows) / accumulate).backward()
            if step % accumulate == 0:
                tuner.gradients_()
                optimizer.step()
                optimizer.zero_grad()
        scheduler.step()
    tuner = Tuner(model, parse(recipe), epochs=2, steps_per_epoch=2)
    callback = for_transformers.TunerCallback(tuner, torch.optim.SGD(tuner.param_groups(0.05)))
    trainer = huggingface_trainer(tmp_path, Setting(accumulate=accumulate, epochs=2), model, callback)
    samples = [{"pixel_values": image, "labels": label, "indices": row} for row, (image, label) in enumerate(zip(x, y, strict=True))]
    trainer.get_train_dataloader = lambda: torch.utils.data.DataLoader(samples, SIZE)  # type: ignore[method-assign]
    trainer.train()
    assert differing(twin.state_dict(), model.state_dict()) == []
    found = trainer.predict(samples)  # type: ignore[arg-type]
    assert found.metrics["test_loss"] == pytest.approx(float(CE(torch.tensor(found.predictions), y)), abs=1e-6)


STOPS = {"the-end-of-an-epoch": (0, 7, "6"), "in-mid-epoch": (2, 6, "4"), "the-last-step-of-an-epoch": (3, 5, "3")}
LASTING = [
    "l2_sp(alpha=0.1)+rifle(periods=2)",
    "l2_sp(alpha=0.1)+rifle(periods=4, unit='step')",
    "l2_sp_fisher",
    "disturb_label(gamma=0.5)",
    "soft_targets",
    "tpgm(every=2, iterations=3)",
]


PAIRWISE = [
    pytest.param(recipe, *stop, 1 + (row + column) % 2, id=f"{recipe}-{name}-{1 + (row + column) % 2}")
    for row, recipe in enumerate(LASTING)
    for column, (name, stop) in enumerate(STOPS.items())
]  # Each recipe with each stop, and each of both with one and with two micro-batches.


@pytest.mark.parametrize(("recipe", "save", "kill", "step", "accumulate"), PAIRWISE)
def test_kill_and_resume(recipe: str, save: int, kill: int, step: str, accumulate: int, tmp_path: Path) -> None:
    """Fresh objects, the network drawn from another seed: anchors and masks come from the checkpoint alone."""
    setting = Setting(recipe, accumulate=accumulate, network="dropout")
    expected = plain(setting)
    with pytest.raises(Killed):
        lightning(setting, tmp_path / "lightning", kill=kill, save=save)
    torch.manual_seed(123)
    assert differing(expected, lightning(setting, tmp_path / "lightning", save=save, resume=tmp_path / f"lightning/step={step}.ckpt")) == []
    with pytest.raises(Killed):
        hugging_face(setting, tmp_path / "hf", kill=kill, save=save)
    torch.manual_seed(123)
    assert differing(expected, hugging_face(setting, tmp_path / "hf", save=save, resume=tmp_path / f"hf/checkpoint-{step}")) == []


def test_resume_in_the_midst_of_a_direction_and_adam(tmp_path: Path) -> None:
    setting = Setting("l2_sp(alpha=0.1)+rifle(periods=2)", DTNH(), "dropout", optimizer="Adam", lr=0.01)
    expected = plain(setting)
    for kill, step in ((6, 4), (9, 8)):
        with pytest.raises(Killed):
            lightning(setting, tmp_path / f"l{step}", kill=kill, save=2)
        assert differing(expected, lightning(setting, resume=tmp_path / f"l{step}/step={step}.ckpt")) == []
        with pytest.raises(Killed):
            hugging_face(setting, tmp_path / f"h{step}", kill=kill, save=2)
        assert (
            differing(expected, hugging_face(setting, tmp_path / "elsewhere", save=2, resume=tmp_path / f"h{step}/checkpoint-{step}")) == []
        )


def test_a_shuffling_loader_resumes_at_the_end_of_an_epoch(tmp_path: Path) -> None:
    """Its order comes from torch's default generator, as the network's masks do; Lightning itself keeps neither."""
    setting = Setting("rifle(periods=2)", network="dropout")

    class Shuffled(Module):
        def training_step(self, batch: Any, number: int) -> Tensor:
            x, y = batch
            return self.tuner.loss(self.model, x, y, CE)

    def run(seed: int, kill: bool = False, resume: Path | None = None) -> dict[str, Tensor]:
        model, tuner = setting.build(seed)
        data = torch.utils.data.TensorDataset(setting.samples.x, setting.samples.y)
        stop = [_Kill()] if kill else []
        checkpoint = pl.callbacks.ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        trainer = pl.Trainer(accelerator="cpu", max_epochs=4, callbacks=[for_lightning.TunerCallback(tuner), checkpoint, *stop], logger=False,
                             enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
        torch.manual_seed(11 + seed)
        trainer.fit(Shuffled(setting, model, tuner), torch.utils.data.DataLoader(data, SIZE, shuffle=True), ckpt_path=resume)
        return model.state_dict()

    class _Kill(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
            if trainer.current_epoch == 2:
                raise Killed

    expected = run(0)
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(Killed):
        run(0, kill=True)
    assert differing(expected, run(9, resume=tmp_path / "epoch=1.ckpt")) == []


class Watch(Method):
    """Keeps what the labels seam is told."""

    def labels(self, labels: Tensor, indices: Tensor | None, clock: Any) -> Tensor:
        self.seen = [*getattr(self, "seen", []), (None if indices is None else indices.tolist(), clock.micro)]
        return labels


@pytest.mark.parametrize("given", [True, False])
def test_labels_are_keyed_by_the_sample(given: bool, tmp_path: Path) -> None:
    setting = Setting(accumulate=2, steps=1, epochs=1)
    model, tuner = setting.build()
    tuner.methods.append(watch := Watch())
    callback = for_transformers.TunerCallback(tuner, setting.make_optimizer(tuner))
    huggingface_trainer(tmp_path, setting, model, callback, remove_unused_columns=not given).train()
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0)).view(2, 4).tolist() if given else [None, None]
    assert watch.seen == [(order[0], 0), (order[1], 1)]


def huggingface_trainer(folder: Path, setting: Setting, model: nn.Module, callback: Any, **options: Any) -> transformers.Trainer:
    """A Trainer whose parts and arguments a test replaces."""
    parts = {"optimizers": callback.optimizers, "compute_loss_func": callback.compute_loss, "callbacks": [callback]}
    parts |= {name: options.pop(name) for name in list(options) if name in parts}
    arguments = {"output_dir": str(folder), "num_train_epochs": setting.epochs, "gradient_accumulation_steps": setting.accumulate, "use_cpu": True,
                 "per_device_train_batch_size": SIZE, "max_grad_norm": 0.0, "report_to": "none", "disable_tqdm": True, "save_strategy": "no",
                 "remove_unused_columns": False, "label_names": ["labels"], **options}  # fmt: skip
    kind = Trainer if not arguments["remove_unused_columns"] else transformers.Trainer
    return kind(model, transformers.TrainingArguments(**arguments), train_dataset=setting.samples, **parts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"max_grad_norm": 1.0},
            r"max_grad_norm=1 would clip before the penalties are added; give max_grad_norm=0 and TunerCallback\(max_norm=1\)",
        ),
        ({"num_train_epochs": 3}, r"this run has 9 optimiser steps, but the tuner was built for 12; give num_train_epochs=4"),
        ({"max_steps": 5}, r"this run has 5 optimiser steps"),
        ({"gradient_accumulation_steps": 2}, r"3 batches, 2 a step, make 2 optimiser steps an epoch, but .* steps_per_epoch=3"),
        ({"label_smoothing_factor": 0.1}, r"label_smoothing_factor=0.1 would be ignored"),
        ({"optimizers": (None, None)}, r"give Trainer\(optimizers=callback.optimizers\)"),
        ({"compute_loss_func": None}, r"give Trainer\(compute_loss_func=callback.compute_loss\)"),
    ],
)
def test_hugging_face_is_told_what_to_give(options: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    setting = Setting("l2_sp")
    model, tuner = setting.build()
    model.config = type("Config", (), {"problem_type": None, "use_cache": False})()  # type: ignore[assignment]  # The Trainer asks it before we can.
    if "compute_loss_func" in options:
        model.forward = _own_loss(model.forward)  # type: ignore[method-assign]
    callback = for_transformers.TunerCallback(tuner, setting.make_optimizer(tuner))
    with pytest.raises(ValueError, match=sentence):
        huggingface_trainer(tmp_path, setting, model, callback, **options).train()


def _own_loss(forward: Any) -> Any:
    """A network that computes a loss itself, as those of transformers do."""

    def with_loss(x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": CE(forward(x), labels)}

    return with_loss


def test_hugging_face_refuses_a_checkpoint_without_the_tuner(tmp_path: Path) -> None:
    setting = Setting("l2_sp")
    with pytest.raises(Killed):
        hugging_face(setting, tmp_path, kill=5, save=2, save_only_model=True)
    with pytest.raises(ValueError, match="written without the tuner's state, or with save_only_model=True"):
        hugging_face(setting, tmp_path, save=2, resume=tmp_path / "checkpoint-4")
    with pytest.raises(Killed):
        hugging_face(setting, tmp_path, kill=5, save=2)
    torch.save({"last_epoch": 1}, tmp_path / "checkpoint-4/scheduler.pt")
    with pytest.raises(ValueError, match="written without a tuner"):
        hugging_face(setting, tmp_path, save=2, resume=tmp_path / "checkpoint-4")


def test_hugging_face_needs_labels(tmp_path: Path) -> None:
    callback = for_transformers.TunerCallback(tuner := Setting().build()[1], Setting().make_optimizer(tuner))
    with pytest.raises(ValueError, match='the batches have no "labels"'):
        callback.compute_loss(torch.zeros(2, 3), None)
    with pytest.raises(ValueError, match="max_norm must be a finite number of at least 0, found -1"):
        for_transformers.TunerCallback(tuner, Setting().make_optimizer(tuner), max_norm=-1)


class NoScheduler(Module):
    def configure_optimizers(self) -> Any:
        self.tuner.scheduler(optimizer := self.setting.make_optimizer(self.tuner))
        return optimizer


class EveryStep(Module):
    def configure_optimizers(self) -> Any:
        optimizer = self.setting.make_optimizer(self.tuner)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.tuner.scheduler(optimizer), "interval": "step"}}


class Manual(Module):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.automatic_optimization = False


@pytest.mark.parametrize(
    ("module", "options", "sentence"),
    [
        (Module, {"max_epochs": 3}, r"max_epochs=3, but the tuner's run has 4; give Trainer\(max_epochs=tuner.epochs\)"),
        (Module, {"accumulate_grad_batches": 2}, r"3 batches, 2 a step, make 2 optimiser steps an epoch, but .* steps_per_epoch=3"),
        (NoScheduler, {}, r"return \[optimizer\], \[tuner.scheduler\(optimizer\)\] from configure_optimizers"),
        (EveryStep, {}, r"steps once an epoch; found interval='step', frequency=1"),
        (Manual, {}, r"needs Lightning's automatic optimisation"),
    ],
)
def test_lightning_is_told_what_to_give(module: type[Module], options: dict[str, Any], sentence: str) -> None:
    setting = Setting("l2_sp")
    model, tuner = setting.build()
    with pytest.raises(ValueError, match=sentence):
        quiet_trainer(tuner, **options).fit(module(setting, model, tuner), Resumable(setting.samples))


def quiet_trainer(tuner: Any, **options: Any) -> pl.Trainer:
    """Lightning's Trainer for a test of one thing."""
    plain_options = {"accelerator": "cpu", "max_epochs": 4, "logger": False, "enable_progress_bar": False, "enable_model_summary": False,
                     "enable_checkpointing": False, "callbacks": [for_lightning.TunerCallback(tuner)]}  # fmt: skip
    return pl.Trainer(**{**plain_options, **options})  # type: ignore[arg-type]


def test_lightning_refuses_a_checkpoint_without_the_callback(tmp_path: Path) -> None:
    setting = Setting("l2_sp")
    model, tuner = setting.build()
    with pytest.raises(Killed):
        lightning(setting, tmp_path, kill=5, save=2)
    path = tmp_path / "step=4.ckpt"
    state = torch.load(path, weights_only=False)
    state["callbacks"] = {}
    torch.save(state, path)
    with pytest.raises(ValueError, match="written without TunerCallback"):
        quiet_trainer(tuner).fit(Module(setting, model, tuner), Resumable(setting.samples), ckpt_path=path)


def test_lightning_tries_one_batch() -> None:
    setting = Setting("l2_sp")
    model, tuner = setting.build()
    trainer = quiet_trainer(tuner, fast_dev_run=True)
    trainer.fit(Module(setting, model, tuner), Resumable(setting.samples))
    assert trainer.global_step == 1


def test_lightning_unscales_first_and_leaves_steps_out() -> None:
    """float16 with a scaler: a scale that is a power of 2 changes nothing; one that overflows costs steps, not the run."""

    def run(scale: float) -> tuple[dict[str, Tensor], float]:
        setting = Setting("l2_sp(alpha=0.5)+rifle(periods=4, unit='step')")
        model, tuner = setting.build()
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        plugin = pl.plugins.MixedPrecision("16-mixed", "cpu", scaler)
        quiet_trainer(tuner, plugins=[plugin]).fit(Module(setting, model, tuner), Resumable(setting.samples))
        return model.state_dict(), scaler.get_scale()

    (small, _), (large, _), (_, reduced) = run(2.0**7), run(2.0**8), run(2.0**126)
    assert differing(small, large) == []
    assert reduced < 2.0**126


def test_the_draw_is_made_once_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    restart = Rifle.restart_
    monkeypatch.setattr(Rifle, "restart_", lambda self, clock, optimizer: calls.append(restart(self, clock, optimizer)) or calls[-1])
    setting = Setting("rifle(periods=4)")
    lightning(setting)
    hugging_face(setting, tmp_path)
    assert calls.count(True) == 6
