"""One small network that has all that any method asks for: residual and transformer blocks, BatchNorm, a linear head."""

import copy
from collections.abc import Callable, Iterable

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from rekindle.method import DataPasses, Direction, Method
from rekindle.tuner import Tuner

SIZE, CLASSES, IMAGES = 8, 3, 48


class Hybrid(nn.Module):
    """Two residual blocks, then two transformer blocks on their positions.

    Args:
        norm: Whether residual blocks have BatchNorm; without, a batch in two halves gives the gradient of the whole.
    """

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        kind = nn.BatchNorm2d if norm else _NoNorm
        self.stem = nn.Conv2d(3, 4, 3, 1, 1)
        down = nn.Sequential(nn.Conv2d(4, 8, 1, 2), kind(8))
        self.layer1 = nn.Sequential(BasicBlock(4, 4, norm_layer=kind))
        self.layer2 = nn.Sequential(BasicBlock(4, 8, 2, down, norm_layer=kind))
        self.blocks = nn.Sequential(Block(8, 2, 2.0), Block(8, 2, 2.0))
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 8, 8) to (B, 3)."""
        maps = self.layer2(self.layer1(self.stem(x)))
        return self.fc(self.blocks(maps.flatten(2).transpose(1, 2)).mean(1))  # type: ignore[no-any-return]


class _NoNorm(nn.Identity):
    """Stands where a residual block wants a norm."""

    def __init__(self, width: int) -> None:
        super().__init__()


def hybrid(seed: int = 0, norm: bool = True) -> Hybrid:
    """A small network with convolutions and attention.

    Returns:
        The network, equal for equal seeds.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Hybrid(norm)


def batch(key: int, count: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Images, labels and positions in a training set of 48; each class occurs.

    Returns:
        (images, labels, positions).
    """
    stream = torch.Generator().manual_seed(key)
    labels = torch.cat([torch.arange(CLASSES), torch.randint(CLASSES, (count - CLASSES,), generator=stream)])
    x = torch.randn(count, 3, SIZE, SIZE, generator=stream) + labels.view(-1, 1, 1, 1)
    return x, labels, torch.randperm(IMAGES, generator=stream)[:count]


def passes() -> list[tuple[Tensor, Tensor]]:
    """The training set, as `prepare` sees it.

    Returns:
        Batches of (images, labels).
    """
    return [batch(900 + number)[:2] for number in range(3)]


def data(dtype: torch.dtype = torch.float32) -> DataPasses:
    """What `Tuner.prepare` takes: passes over the training set and over pictures that it does not hold.

    Returns:
        Passes that are equal each time.
    """
    return DataPasses(
        lambda: [(x.to(dtype), y) for x, y in passes()],
        held_out=lambda: [(x.to(dtype), y) for x, y, _ in (batch(950 + number) for number in range(2))],
    )


class Loop:
    """A model, its tuner and optimiser, and the plain loop of the documentation over keyed batches.

    Args:
        keep_at: (epoch, step) before which `kept` gets what a checkpoint would hold.
    """

    def __init__(
        self, methods: list[Method], model: nn.Module | None = None, epochs: int = 4, steps: int = 3, direction: Direction | None = None, accumulate: int = 1,
        lr: float = 0.01, keep_at: Iterable[tuple[int, int]] = (),
    ) -> None:  # fmt: skip
        self.model = model or hybrid()
        self.tuner = Tuner(self.model, methods, head="fc", epochs=epochs, steps_per_epoch=steps, direction=direction, seed=3)
        self.optimizer = torch.optim.SGD(self.tuner.param_groups(lr=lr), momentum=0.9)
        self.scheduler = self.tuner.scheduler(self.optimizer)
        self.accumulate = accumulate
        self.forward: Callable[[Tensor], Tensor] = self.model
        self.keep_at = tuple(keep_at)
        self.kept: dict[tuple[int, int], list[object]] = {}

    def run(self, stop: tuple[int, int] | None = None) -> dict[str, Tensor]:
        """Train from where the tuner stands to the end, or to just before step `stop`; return the weights.

        Returns:
            Copies of the weights by name.
        """
        self.tuner.prepare(data())
        self.model.train()
        for epoch in range(max(self.tuner._epoch, 0), self.tuner.epochs):
            self.tuner.start_epoch(epoch)
            for step in range(self.tuner._step, self.tuner.steps_per_epoch):
                if stop == (epoch, step):
                    return self.state()
                if (epoch, step) in self.keep_at:
                    self.kept[epoch, step] = copy.deepcopy(self.saved())
                self.step(epoch, step)
            self.scheduler.step()
        return self.state()

    def step(self, epoch: int, step: int) -> None:
        """One optimiser step."""
        pieces = zip(*(part.chunk(self.accumulate) for part in batch(1000 * epoch + step)), strict=True)
        for x, y, indices in pieces:
            (self.tuner.loss(self.forward, x, y, nn.functional.cross_entropy, indices) / self.accumulate).backward()
        self.tuner.gradients_()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state(self) -> dict[str, Tensor]:
        """The network as it stands.

        Returns:
            Copies of its weights and buffers by name.
        """
        return {key: value.clone() for key, value in self.model.state_dict().items()}

    def parts(self) -> tuple[nn.Module, torch.optim.Optimizer, object, Tuner]:
        """What a checkpoint holds.

        Returns:
            (model, optimiser, scheduler, tuner).
        """
        return self.model, self.optimizer, self.scheduler, self.tuner

    def saved(self) -> list[object]:
        """What would be written to a file.

        Returns:
            Torch's random state, then the state of each of `parts`.
        """
        return [torch.get_rng_state(), *(part.state_dict() for part in self.parts())]  # type: ignore[attr-defined]

    def load(self, saved: list[object]) -> None:
        torch.set_rng_state(saved[0])  # type: ignore[arg-type]
        for part, state in zip(self.parts(), saved[1:], strict=True):
            part.load_state_dict(state)  # type: ignore[attr-defined]
