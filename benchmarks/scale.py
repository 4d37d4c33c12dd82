"""What data of many pictures take of time and memory, a picture: to open, to decode, to find in the cache, and to show in an epoch."""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

EDGE, SIZE, CLASSES, BATCH = 9, 8, 1000, 256
HEADER = b"BM" + np.array([54 + EDGE * (3 * EDGE + 1), 0, 54, 40, EDGE, EDGE, 24 << 16 | 1, 0, 0, 0, 0, 0, 0], "<u4").tobytes()
MEAN = STD = (0.5, 0.5, 0.5)
PHASES = {
    "opened": "open the table and divide it", "decoded": "decode into the cache", "found": "find in the cache", "hashed": "name the run by its contents",
    "looked": "choose what is looked at first", "ordered": "order an epoch", "balanced": "order an epoch, every class equally often",
    "shown": "crop, mirror and normalise, an epoch",
}  # fmt: skip


def measure(counts: list[int], told: Callable[[str], None]) -> list[dict[str, Any]]:
    """A row for each number of pictures: microseconds of the processor a picture in each phase, and the peak of memory.

    Args:
        counts: Pictures, of `CLASSES` classes; each number is measured in a process of its own, with an empty cache.
        told: Given each row.
    """
    rows = []
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            ended = subprocess.run(
                [sys.executable, "-m", "benchmarks.scale", str(count), folder], check=True, capture_output=True, text=True
            )
        rows.append(json.loads(ended.stdout))
        told(ended.stdout.strip())
    return rows


def write_table(path: Path, count: int) -> None:
    """A Parquet table of so many pictures of 9 by 9 pixels, no two of which are equal, as BMP files of 306 bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    schema = pa.schema([("image", pa.binary()), ("label", pa.int32())])
    with pq.ParquetWriter(path, schema) as file:
        for first in range(0, count, 10_000):
            rows = min(10_000, count - first)
            pixels = rng.integers(0, 256, (rows, EDGE, 3 * EDGE + 1), np.uint8)
            pictures = pa.array([HEADER + one.tobytes() for one in pixels], pa.binary())
            file.write_table(pa.table([pictures, pa.array((first + np.arange(rows)) % CLASSES, pa.int32())], schema))


def one(count: int, folder: Path) -> dict[str, Any]:
    """The figures of one number of pictures, in a fresh process and folder."""
    import torch

    from rekindle import data
    from rekindle.data.cache.cache import Cache
    from rekindle.fitting.look import chosen_rows
    from rekindle.fitting.setup import data_hash

    torch.set_num_threads(1)
    write_table(folder / "table.parquet", count)
    spent: dict[str, float] = {}

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        began = time.process_time()
        yield
        spent[name] = (time.process_time() - began) / count * 1e6

    before, cache = _peak(), Cache.default(folder / "home")
    with phase("opened"):
        dataset = data.open_data(str(folder / "table.parquet"))
    train, paths = dataset.splits["train"], [path for split in dataset.splits.values() for path in split.paths]
    for name in ("decoded", "found"):
        with phase(name):
            pixels = data.Pixels.load(paths, EDGE, threads=1, cache=cache)
    with phase("hashed"):
        data_hash(dataset, pixels)
    with phase("looked"):
        chosen_rows(train.labels, 0)
    with phase("ordered"):
        steps = data.split_batches(len(train.paths), BATCH, data.order(len(train.paths), 0, 1))
    with phase("balanced"):
        data.balanced_order(train.labels, 0, 1)
    with phase("shown"):
        for rows in steps:
            data.train_batch(pixels, rows, image_size=SIZE, flip=True, seed=0, epoch=1, mean=MEAN, std=STD)
    return {"count": count, "spent": spent, "bytes": (_peak() - before) / count}


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    print(json.dumps(one(int(sys.argv[1]), Path(sys.argv[2]))))
