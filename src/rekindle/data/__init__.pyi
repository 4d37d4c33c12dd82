from .batches import balanced_order, eval_batch, order, preview, shard, split_batches, train_batch
from .cache import Cache
from .cells import Cell, Picture
from .dataset import Dataset, Split, contradictions, duplicates, imbalance
from .decode import Undecodable, decode
from .pixels import Pixels
from .samples import Preprocessing, Samples
from .sources import open_data
from .tree import find_images

__all__ = [
    "Cache", "Cell", "Dataset", "Picture", "Pixels", "Preprocessing", "Samples", "Split", "Undecodable", "balanced_order", "contradictions",
    "decode", "duplicates", "eval_batch", "find_images", "imbalance", "open_data", "order", "preview", "shard", "split_batches", "train_batch",
]  # fmt: skip
