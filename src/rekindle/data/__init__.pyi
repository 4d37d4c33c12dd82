from .batches import balanced_order, eval_batch, order, preview, shard, split_batches, train_batch
from .cache.cache import Cache
from .cache.decode import Undecodable, decode, decode_whole
from .cache.pixels import Pixels
from .dataset import Dataset, Split, contradictions, duplicates, imbalance
from .formats.folder_walk import find_images
from .formats.images import Picture, TableImage
from .formats.open import open_data
from .samples import Preprocessing, Samples

__all__ = [
    "Cache",
    "Dataset",
    "Picture",
    "Pixels",
    "Preprocessing",
    "Samples",
    "Split",
    "TableImage",
    "Undecodable",
    "balanced_order",
    "contradictions",
    "decode",
    "decode_whole",
    "duplicates",
    "eval_batch",
    "find_images",
    "imbalance",
    "open_data",
    "order",
    "preview",
    "shard",
    "split_batches",
    "train_batch",
]  # fmt: skip
