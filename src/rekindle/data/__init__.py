"""From folders and tables of photographs to batches."""

from rekindle.data.batches import balanced_order, batches, eval_batch, order, preview, shard, train_batch
from rekindle.data.cache import Cache
from rekindle.data.cells import Cell, Picture
from rekindle.data.dataset import Dataset, Split, contradictions, duplicates, imbalance
from rekindle.data.decode import Undecodable, decode
from rekindle.data.folders import scan
from rekindle.data.pixels import Pixels
from rekindle.data.sources import open_data
from rekindle.data.tree import find_images

__all__ = [
    "Cache", "Cell", "Dataset", "Picture", "Pixels", "Split", "Undecodable", "balanced_order", "batches", "contradictions", "decode", "duplicates",
    "eval_batch", "find_images", "imbalance", "open_data", "order", "preview", "scan", "shard", "train_batch",
]  # fmt: skip
