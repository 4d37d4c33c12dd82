"""From folders of photographs to batches."""

from rekindle.data.batches import batches, eval_batch, order, preview, shard, train_batch
from rekindle.data.cells import Cell, Picture
from rekindle.data.dataset import Dataset, Split, duplicates
from rekindle.data.decode import Undecodable, decode
from rekindle.data.folders import scan
from rekindle.data.pixels import Pixels
from rekindle.data.tree import find_images

__all__ = [
    "Cell", "Dataset", "Picture", "Pixels", "Split", "Undecodable", "batches", "decode", "duplicates", "eval_batch", "find_images", "order", "preview",
    "scan", "shard", "train_batch",
]  # fmt: skip
