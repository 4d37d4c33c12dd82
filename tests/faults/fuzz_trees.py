"""Odd folders as data: each is opened, or refused in words, soon and in little memory. A seed gives the same folders again."""

import os
import random
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from rekindle import data as data_room
from rekindle.data.check import check
from tests.faults.fuzz_text import Tally

LEVELS, LONG_NAME = (20, 150, 1500), "x" * 240
NAMES = (
    b"caf\xe9.png",
    "é.png".encode(),
    "e\u0301.png".encode(),
    b"a\nb.png",
    b"=1+1.png",
    b" .png",
    b"-rf.png",
    b".hidden.png",
    LONG_NAME.encode() + b".png",
    b"CON.png",
)


def fuzz_trees(count: int, folder: Path, seed: int = 0) -> Tally:
    """Open and check so many folders, each sound one but for one to three odd things.

    Args:
        count: Of folders.
        folder: Where they are made, one after the other; empty.
        seed: Of what is odd.
    """
    draw, tally = random.Random(seed), Tally(lines=True)
    for number in range(count):
        root = folder / f"tree{number}"
        changes = [draw.choice(CHANGES) for _ in range(draw.randint(1, 3))]
        name = " and ".join(change.__name__ for change in changes)
        try:
            _sound(root, draw)
            for change in changes:
                change(_some_folder(root, draw), draw)
            tally.add(f"open_data: {name}", lambda root=root: data_room.open_data(root))  # type: ignore[misc]
            tally.add(f"check: {name}", lambda root=root: check(root))  # type: ignore[misc]
        finally:
            _remove(root)  # Whoever removes the folder after us may not follow so many levels.
    return tally


def _sound(root: Path, draw: random.Random) -> None:
    splits = draw.choice(([""], ["train", "val"], ["train", "test"]))
    for split in splits:
        for kind in ("cat", "dog"):
            home = root / split / kind
            home.mkdir(parents=True)
            for number in range(3):
                pixels = np.random.default_rng(draw.randrange(2**32)).integers(0, 256, (9, 9, 3), np.uint8)
                Image.fromarray(pixels).save(home / f"{number}.png")


def _some_folder(root: Path, draw: random.Random) -> Path:
    near = sorted([*root.glob("*"), *root.glob("*/*")])
    return draw.choice([root, *(path for path in near if path.is_dir() and not path.is_symlink())])


def _remove(root: Path) -> None:
    """Remove a tree, also one that is deeper than Python's own functions follow."""
    subprocess.run(["chmod", "-R", "u+rwx", root], check=False, capture_output=True)
    subprocess.run(["rm", "-rf", root], check=True)


def _unused(home: Path, draw: random.Random, ending: str = ".png") -> Path:
    return home / f"odd{draw.randrange(10**9)}{ending}"


def named_pipe(home: Path, draw: random.Random) -> None:
    os.mkfifo(_unused(home, draw))


def link_to_endless_device(home: Path, draw: random.Random) -> None:
    _unused(home, draw, draw.choice((".png", ".csv", ""))).symlink_to(draw.choice(("/dev/zero", "/dev/random", "/dev/full")))


def link_to_itself(home: Path, draw: random.Random) -> None:
    path = _unused(home, draw)
    path.symlink_to(path)


def link_upwards(home: Path, draw: random.Random) -> None:
    _unused(home, draw, "").symlink_to(draw.choice((home, home.parent)), target_is_directory=True)


def link_to_nothing(home: Path, draw: random.Random) -> None:
    _unused(home, draw).symlink_to("nothing")


def listening_socket(home: Path, draw: random.Random) -> None:
    place = os.open(home, os.O_RDONLY)  # A socket's path may have 107 bytes.
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"/proc/self/fd/{place}/odd{draw.randrange(10**9)}.png")
    finally:
        os.close(place)


def closed_folder(home: Path, draw: random.Random) -> None:
    path = _unused(home, draw, "")
    path.mkdir()
    path.chmod(0)


def odd_name(home: Path, draw: random.Random) -> None:
    shutil.copyfile(_a_picture(home), os.path.join(os.fsencode(home), draw.choice(NAMES)))


def odd_folder_name(home: Path, draw: random.Random) -> None:
    path = Path(os.fsdecode(os.path.join(os.fsencode(home), draw.choice(NAMES).removesuffix(b".png"))))
    path.mkdir(exist_ok=True)
    shutil.copyfile(_a_picture(home), path / "0.png")


def nested_folders(home: Path, draw: random.Random) -> None:
    path = home.joinpath(*["n"] * draw.choice(LEVELS))
    subprocess.run(["mkdir", "-p", path], check=True)  # Python's own is recursive.
    shutil.copyfile(_a_picture(home), path / "0.png")


def folder_named_as_picture(home: Path, draw: random.Random) -> None:
    _unused(home, draw).mkdir()


def file_named_as_split(home: Path, draw: random.Random) -> None:
    path = home / draw.choice(("train", "val", "test", "data.json", "train.csv", "dataset_info.json", "state.json"))
    if not path.exists():
        path.write_bytes(draw.choice((b"", b"{}", b"x", b"[]", b"null", bytes(200), b"a,b\n1,2\n")))


def damaged_picture(home: Path, draw: random.Random) -> None:
    whole = _a_picture(home).read_bytes()
    _unused(home, draw, draw.choice((".png", ".jpg", ".tif", ".webp"))).write_bytes(whole[: draw.randrange(len(whole))])


def empty_folder(home: Path, draw: random.Random) -> None:
    _unused(home, draw, "").mkdir()


def _a_picture(home: Path) -> Path:
    """Any whole picture near a folder."""
    root = next(place for place in (home, *home.parents) if place.name.startswith("tree"))
    return next(path for name in ("cat", "train/cat") if (path := root / name / "0.png").is_file())


CHANGES: tuple[Callable[[Path, random.Random], None], ...] = (
    named_pipe, link_to_endless_device, link_to_itself, link_upwards, link_to_nothing, listening_socket, closed_folder, odd_name, odd_folder_name,
    nested_folders, folder_named_as_picture, file_named_as_split, damaged_picture, empty_folder,
)  # fmt: skip
