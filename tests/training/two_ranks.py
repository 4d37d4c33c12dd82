"""Train a network without BatchNorm on one or two processes; each rank writes its weights and its head after each draw."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from rekindle import L2SP, Rifle, Source, Tuner, data
from rekindle.data.samples import Preprocessing, Samples
from rekindle.training.criterion import CrossEntropy
from rekindle.training.fabric import Fabric
from rekindle.training.trainer import Training

HALF = (0.5, 0.5, 0.5)


class Plain(torch.nn.Module):
    """Neither BatchNorm nor dropout, so that two half batches are one whole."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, 2)
        self.fc = torch.nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).relu().mean((2, 3)))


class Watcher:
    """Keeps the head as it is after each draw; a draw is seen at the epoch's record by the tuner's own answer."""

    def note(self, text: str) -> None: ...
    def progress(self, *values: object) -> None: ...
    def step(self, *values: object) -> None: ...
    def epoch(self, record: object) -> None: ...


def main(folder: Path, devices: int, out: Path) -> None:
    torch.set_num_threads(1)
    fabric = Fabric(accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto")
    fabric.launch()
    dataset = data.open_data(folder)
    torch.manual_seed(0)
    model = Plain()
    source = Source(model)
    torch.manual_seed(fabric.global_rank)  # Each rank draws from its own generator, as a careless loop would.
    splits, start = {}, 0
    pixels = data.Pixels.load([p for split in dataset.splits.values() for p in split.paths], 37)
    for name, split in dataset.splits.items():
        splits[name] = Samples(pixels, torch.arange(start, start + len(split.paths)), split.labels, Preprocessing(32, HALF, HALF))
        start += len(split.paths)
    steps = len(data.split_batches(22, 6, torch.arange(22), world=2))
    tuner = Tuner(model, [L2SP(alpha=0.1), Rifle(periods=4)], source=source, head="fc", epochs=8, steps_per_epoch=steps)
    kept = {}
    begin = tuner.start_epoch

    def watched(epoch: int) -> bool:
        drawn = begin(epoch)
        if drawn:
            kept[f"drawn{epoch}"] = model.fc.weight.detach().clone()
        return drawn

    tuner.start_epoch = watched  # type: ignore[method-assign]
    optimizer = torch.optim.SGD(tuner.param_groups(0.01), momentum=0.9)
    Training(
        fabric=fabric, model=model, tuner=tuner, optimizer=optimizer, criterion=CrossEntropy(), train=splits["train"], val=splits["val"],
        batch_size=6, seed=0, folder=out / "checkpoints", keep="last", listener=Watcher(),
    ).fit()  # fmt: skip
    out.mkdir(exist_ok=True, parents=True)
    save_file({**model.state_dict(), **kept}, out / f"rank{fabric.global_rank}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
