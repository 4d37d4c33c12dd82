"""Write a Parquet table of encoded pictures as a folder of class folders: FOLDER/SPLIT/CLASS/NUMBER.jpg.

Example: python tools/unpack_parquet.py cifar10/ cifar10-folder/
"""

import sys
from pathlib import Path

import pyarrow.parquet as pq


def unpack(source: Path, target: Path) -> None:
    """Each SPLIT.parquet has columns `image` (bytes) and `label`, and the class names in the schema's metadata."""
    for table in sorted(source.glob("*.parquet")):
        content = pq.read_table(table)
        classes = content.schema.metadata[b"classes"].decode().strip('[]"').replace('", "', ",").replace('","', ",").split(",")
        for name in classes:
            (target / table.stem / name).mkdir(parents=True, exist_ok=True)
        for number, (image, label) in enumerate(zip(content["image"], content["label"], strict=True)):
            (target / table.stem / classes[label.as_py()] / f"{number:05d}.jpg").write_bytes(image.as_py())


if __name__ == "__main__":
    unpack(Path(sys.argv[1]), Path(sys.argv[2]))
