"""Speed and memory of our data against torchvision's, as ratios in one run.

    python benchmarks/data.py FOLDER [--cores 2] [--epochs 3] [--json]

FOLDER holds train/CLASS/picture.jpg, such as the clothes (3,068 photographs). The other side is what most people write:
`ImageFolder` and `DataLoader` with the papers' transforms (Resize 256, RandomCrop 224, RandomHorizontalFlip, ToTensor, Normalize),
a worker for each core. Each side runs in a process of its own, pinned to the same cores, and turns the same pictures into batches
of 32 normalised float tensors at 224, which nothing but counts. Images a second of a core are per second of processor time, so
that other work on the machine distorts them little; those of the clock are given too. Sides take turns epoch by epoch.
Then SqueezeNet is trained at 128 on these cores, and the share of the time that it waits for data is read from its metrics.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

BATCH, SIZE, EDGE = 32, 224, 256
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def ours(folder: Path, workers: int, told: Callable[[str], None]) -> Iterator[int]:
    """Batches of `rekindle`: the first epoch begins with an empty cache. Yields the number of images after each epoch."""
    from rekindle.data import Pixels, order, split_batches, train_batch
    from rekindle.data.cache.cache import Cache
    from rekindle.data.formats.folder_walk import find_images
    from rekindle.data.prefetch import prefetch

    paths = find_images([folder / "train"])
    pixels = Pixels.load(paths, EDGE, threads=workers, cache=Cache.default(), note=told)
    for epoch in count():
        make = partial(train_batch, pixels, image_size=SIZE, flip=True, seed=0, epoch=epoch, mean=MEAN, std=STD)
        yield sum(len(x) for x in prefetch(make, split_batches(len(paths), BATCH, order(len(paths), 0, epoch)), workers))


def theirs(folder: Path, workers: int, told: Callable[[str], None]) -> Iterator[int]:
    """Batches of torchvision, in its best setting: workers stay alive between epochs."""
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    papers = transforms.Compose([
        transforms.Resize(EDGE), transforms.RandomCrop(SIZE), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ])  # fmt: skip
    loader = DataLoader(ImageFolder(str(folder / "train"), papers), BATCH, shuffle=True, num_workers=workers, persistent_workers=True)
    while True:
        yield sum(len(x) for x, _ in loader)


SIDES = {"rekindle": ours, "torchvision": theirs}


def serve(side: str, folder: Path, cores: int) -> None:
    """Run an epoch for each line on standard input and write its figures."""
    import torch

    torch.set_num_threads(1)
    feed = SIDES[side](folder, cores, lambda text: print(text, file=sys.stderr))
    for _ in sys.stdin:
        began, spent = time.perf_counter(), processor_seconds()
        images = next(feed)
        figures = {"images": images, "seconds": time.perf_counter() - began, "core_seconds": processor_seconds() - spent, **memory()}
        print(json.dumps(figures), flush=True)


def processor_seconds() -> float:
    """Processor time of this process and its living children."""
    import psutil

    own = psutil.Process()
    return sum(sum(one.cpu_times()[:2]) for one in [own, *own.children(recursive=True)])


def memory() -> dict[str, int]:
    """Resident bytes of this process (their peak) and its children, and at present without what is mapped or shared."""
    import psutil

    own = psutil.Process()
    everybody = [own, *own.children(recursive=True)]
    anonymous = sum(one.memory_info().rss - getattr(one.memory_info(), "shared", 0) for one in everybody)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + sum(one.memory_info().rss for one in everybody[1:])
    return {"peak_rss": peak, "private": anonymous}


def compare(folder: Path, cores: int, epochs: int, home: Path) -> dict[str, Any]:
    """Both sides by turns on the same cores."""
    for path in sorted((folder / "train").rglob("*")):  # Neither side pays for a cold disk.
        if path.is_file():
            path.read_bytes()
    environment = {**os.environ, "REKINDLE_HOME": str(home), "OMP_NUM_THREADS": "1"}
    processes = {
        side: subprocess.Popen(
            [sys.executable, __file__, str(folder), "--serve", side, "--cores", str(cores)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment,
        )
        for side in SIDES
    }  # fmt: skip
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(1 + epochs):
        for side, process in processes.items():
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write("epoch\n")
            process.stdin.flush()
            found[side].append(json.loads(process.stdout.readline()))
    for process in processes.values():
        process.communicate()
    return {side: summary(lines) for side, lines in found.items()}


def summary(lines: list[dict[str, float]]) -> dict[str, float]:
    """Figures of one side: the first epoch, and the best of the later ones."""
    first, later = lines[0], lines[1:]
    return {
        "images": first["images"],
        "first_by_clock": first["images"] / first["seconds"],
        "first_per_core": first["images"] / first["core_seconds"],
        "later_by_clock": max(line["images"] / line["seconds"] for line in later),
        "later_per_core": max(line["images"] / line["core_seconds"] for line in later),
        "peak_rss": max(line["peak_rss"] for line in lines),
        "private": max(line["private"] for line in lines),
    }


def waiting(folder: Path, cores: int, home: Path, per_class: int) -> dict[str, float]:
    """Share of the training time in which SqueezeNet at 128 waits for data, and its speed."""
    command = [
        "rekindle", "fit", str(folder), "--model", "torchvision:squeezenet1_1", "--weights", "none", "--image-size", "128", "--epochs", "3",
        "--lr", "0.001",
        "--batch-size", str(BATCH), "--per-class", str(per_class), "--no-test", "--out", str(home / "runs"), "--json",
    ]  # fmt: skip
    environment = {**os.environ, "REKINDLE_HOME": str(home), "OMP_NUM_THREADS": str(cores)}
    ended = subprocess.run(
        [sys.executable, "-m", *command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise SystemExit(ended.stderr)
    run = Path(json.loads(ended.stdout)["run"])
    timing = [json.loads(line)["timing"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        "share": sum(one["data_seconds"] for one in timing) / sum(one["seconds"] for one in timing),
        "images_per_second": max(one["images_per_second"] for one in timing),
    }


def table(found: dict[str, Any]) -> str:
    """All figures, and the goals beside them."""
    a, b = found["rekindle"], found["torchvision"]
    rows = [f"{'':34}{'rekindle':>12}{'torchvision':>13}{'ratio':>8}"]
    for key, name in (("first_per_core", "first epoch, images/s of a core"), ("later_per_core", "later epochs, images/s of a core"),
                      ("first_by_clock", "first epoch, images/s by the clock"),
                      ("later_by_clock", "later epochs, images/s by the clock")):  # fmt: skip
        rows.append(f"{name:35}{a[key]:11.0f}{b[key]:13.0f}{a[key] / b[key]:8.2f}")
    for key, name in (("peak_rss", "peak memory, MB"), ("private", "private memory (not mapped or shared), MB")):
        rows.append(f"{name:35}{a[key] / 1e6:11.0f}{b[key] / 1e6:13.0f}{a[key] / b[key]:8.2f}")
    wait = found["waiting"]
    rows.append(f"SqueezeNet at 128 waits for data {100 * wait['share']:.2f} % of its time, at {wait['images_per_second']:.0f} images/s")
    for name, value, goal, at_most in (
        ("first epoch, ratio", a["first_per_core"] / b["first_per_core"], 1, False),
        ("later epochs, ratio", a["later_per_core"] / b["later_per_core"], 8, False),
        ("waiting share", wait["share"], 0.03, True),
    ):
        met = value <= goal if at_most else value >= goal
        rows.append(f"goal: {name} at {'most' if at_most else 'least'} {goal:g}; measured {value:.3g}: {'met' if met else 'NOT met'}")
    return "\n".join(rows)


def main() -> None:
    """Run the comparison and print its table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cores", type=int, default=min(2, len(os.sched_getaffinity(0))))
    parser.add_argument("--epochs", type=int, default=3, help="later epochs; the best counts on both sides")
    parser.add_argument("--per-class", type=int, default=40, help="pictures a class to train SqueezeNet on")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.folder, options.cores)
        return
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])  # Both sides and the training inherit it.
    with tempfile.TemporaryDirectory() as home:
        found = compare(options.folder, options.cores, options.epochs, Path(home))
        found["waiting"] = waiting(options.folder, options.cores, Path(home), options.per_class)
    print(json.dumps(found) if options.json else table(found))


if __name__ == "__main__":
    main()
