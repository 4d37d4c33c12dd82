"""Miniature archives in each task's exact official layout, with a scaled table entry to prepare them by.

Each picture's bytes are "CLASS|SPLIT|NUMBER", so that a test can read from a prepared picture where it belongs.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from rekindle.data.tasks import TASKS, Task, TaskFile

Files = dict[str, bytes]
COUNTS = {"train": 4, "val": 2, "test": 3}  # Pictures a class, where the layout leaves it open.


def miniature(name: str, folder: Path, picture: Callable[[str], bytes] = str.encode) -> Task:
    """Write the archives of a task into `folder` and return its entry with their hashes, and no addresses.

    Args:
        name: The task.
        folder: Where the archives are put; made if it is missing.
        picture: Makes a picture's bytes from "CLASS|SPLIT|NUMBER".
    """
    folder.mkdir(parents=True, exist_ok=True)
    task = TASKS[name]
    files, classes, counts = LAYOUTS[name](picture)
    for file, members in files.items():
        content = members if isinstance(members, bytes) else packed(members, file)
        (folder / file).write_bytes(content)
    sources = tuple(
        TaskFile(one.file, (), one.hash and f"md5:{hashlib.md5((folder / one.file).read_bytes()).hexdigest()}") for one in task.sources
    )
    assert {one.file for one in sources} == files.keys()
    return replace(task, sources=sources, classes=classes, counts=counts)


def packed(members: Files, name: str) -> bytes:
    """A tar archive, compressed where its name says so."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w" if name.endswith(".tar") else "w:gz") as file:
        for path, content in members.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return raw.getvalue()


def matlab(**variables: object) -> bytes:
    raw = io.BytesIO()
    savemat(raw, variables)
    return raw.getvalue()


def lines(rows: list[str]) -> bytes:
    return "".join(f"{row}\n" for row in rows).encode()


def scaled(classes: list[str], *splits: str) -> list[tuple[str, str, str]]:
    """(class, split, tag) of each picture; the splits of a class alternate, so that order alone gives no split away."""
    return [
        (kind, split, f"{kind}|{split}|{number}") for kind in classes for number in range(4) for split in splits if number < COUNTS[split]
    ]


def birds(picture: Callable[[str], bytes]) -> tuple[dict[str, Files | bytes], int, dict[str, int]]:
    classes = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"]
    rows = scaled(classes, "train", "test")
    members = {"attributes.txt": b"1 has_bill_shape::curved\n", "CUB_200_2011/README": b"read me"}
    members["CUB_200_2011/classes.txt"] = lines([f"{n} {kind}" for n, kind in enumerate(classes, 1)])
    names = [f"{kind}/{kind[4:]}_{n:04d}.jpg" for n, (kind, _, _) in enumerate(rows, 1)]
    members["CUB_200_2011/images.txt"] = lines([f"{n} {name}" for n, name in enumerate(names, 1)])
    members["CUB_200_2011/image_class_labels.txt"] = lines([f"{n} {classes.index(kind) + 1}" for n, (kind, _, _) in enumerate(rows, 1)])
    members["CUB_200_2011/train_test_split.txt"] = lines([f"{n} {int(split == 'train')}" for n, (_, split, _) in enumerate(rows, 1)])
    members |= {f"CUB_200_2011/images/{name}": picture(tag) for name, (_, _, tag) in zip(names, rows, strict=True)}
    return {"CUB_200_2011.tgz": members}, 3, {"train": 12, "test": 9}


def aircraft(picture: Callable[[str], bytes]) -> tuple[dict[str, Files | bytes], int, dict[str, int]]:
    classes = ["707-320", "DC-9-30", "F/A-18", "Model B200"]  # Slashes and blanks, as there are.
    rows = scaled(classes, "train", "val", "test")
    numbers = [f"{(n * 7919) % 10**7:07d}" for n in range(1, len(rows) + 1)]
    data = "fgvc-aircraft-2013b/data"
    members = {f"{data}/variants.txt": lines(classes), f"{data}/families.txt": lines(["Boeing 707"])}
    for split in ("train", "val", "test"):
        listed = [f"{number} {kind}" for number, (kind, of, _) in zip(numbers, rows, strict=True) if of == split]
        members[f"{data}/images_variant_{split}.txt"] = lines(listed)
        members[f"{data}/images_family_{split}.txt"] = lines([f"{row.split()[0]} Boeing 707" for row in listed])
    members |= {f"{data}/images/{number}.jpg": picture(tag) for number, (_, _, tag) in zip(numbers, rows, strict=True)}
    return {"fgvc-aircraft-2013b.tar.gz": members}, 4, {"train": 16, "val": 8, "test": 12}


def flowers(picture: Callable[[str], bytes]) -> tuple[dict[str, Files | bytes], int, dict[str, int]]:
    from torchvision.datasets import Flowers102

    rows = [(kind, split, f"{kind}|{split}|0") for kind in Flowers102.classes for split in ("test", "train", "val")]
    of = {split: [n for n, (_, found, _) in enumerate(rows, 1) if found == split] for split in ("train", "val", "test")}
    labels = [Flowers102.classes.index(kind) + 1 for kind, _, _ in rows]
    return {
        "102flowers.tgz": {f"jpg/image_{n:05d}.jpg": picture(tag) for n, (_, _, tag) in enumerate(rows, 1)},
        "imagelabels.mat": matlab(labels=np.array([labels], np.uint8)),
        "setid.mat": matlab(trnid=np.array([of["train"]]), valid=np.array([of["val"]]), tstid=np.array([of["test"]])),
    }, 102, {"train": 102, "val": 102, "test": 102}  # fmt: skip


def textures(picture: Callable[[str], bytes]) -> tuple[dict[str, Files | bytes], int, dict[str, int]]:
    classes = ["banded", "blotchy", "cracked"]
    rows = scaled(classes, "train", "val", "test")
    names = [f"{kind}/{kind}_{n:04d}.jpg" for n, (kind, _, _) in enumerate(rows)]
    members = {f"dtd/images/{name}": picture(tag) for name, (_, _, tag) in zip(names, rows, strict=True)}
    turn = {"train": "val", "val": "test", "test": "train"}
    for split in turn:
        members[f"dtd/labels/{split}1.txt"] = lines([name for name, (_, of, _) in zip(names, rows, strict=True) if of == split])
        members[f"dtd/labels/{split}2.txt"] = lines([name for name, (_, of, _) in zip(names, rows, strict=True) if turn[of] == split])
    members["dtd/labels/labels_joint_anno.txt"] = lines([f"{name} {name.split('/')[0]}" for name in names])
    return {"dtd-r1.0.1.tar.gz": members}, 3, {"train": 12, "val": 6, "test": 9}


def indoor(picture: Callable[[str], bytes]) -> tuple[dict[str, Files | bytes], int, dict[str, int]]:
    classes = ["airport_inside", "artstudio", "winecellar"]
    rows = scaled(classes, "train", "test")
    names = [f"{kind}/{kind} {n}, b.jpg" for n, (kind, _, _) in enumerate(rows)]
    members = {f"Images/{name}": picture(tag) for name, (_, _, tag) in zip(names, rows, strict=True)}
    members |= {f"Images/{kind}/in_neither_list.jpg": picture("neither") for kind in classes}
    texts = {
        file: lines([name for name, (_, of, _) in zip(names, rows, strict=True) if of == split])
        .replace(b"\n", b"\r\n")
        .removesuffix(b"\r\n")
        for split, file in (("train", "TrainImages.txt"), ("test", "TestImages.txt"))
    }
    return {"indoorCVPR_09.tar": members, **texts}, 3, {"train": 12, "test": 9}


def cars(picture: Callable[[str], bytes]) -> tuple[dict[str, Files | bytes], int, dict[str, int]]:
    classes = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Ram C/V Cargo Van Minivan 2012"]
    rows = scaled(classes, "train", "test")
    kinds = [("bbox_x1", object), ("bbox_y1", object), ("bbox_x2", object), ("bbox_y2", object), ("class", object), ("fname", object)]
    pictures: dict[str, Files] = {"train": {}, "test": {}}
    marks: dict[str, list[tuple[object, ...]]] = {"train": [], "test": []}
    for kind, split, tag in rows:
        name = f"{len(marks[split]) + 1:05d}.jpg"  # Both splits count from 1.
        pictures[split][f"cars_{split}/{name}"] = picture(tag)
        marks[split].append((1, 2, 30, 40, classes.index(kind) + 1, name))
    names = np.empty((1, 3), object)
    names[0, :] = classes
    blind = [(*row[:4], row[5]) for row in marks["test"]]
    devkit = {
        "devkit/cars_meta.mat": matlab(class_names=names),
        "devkit/cars_train_annos.mat": matlab(annotations=np.array([marks["train"]], kinds)),
        "devkit/cars_test_annos.mat": matlab(annotations=np.array([blind], [*kinds[:4], kinds[5]])),
    }
    return {
        "cars_train.tgz": pictures["train"], "cars_test.tgz": pictures["test"], "car_devkit.tgz": devkit,
        "cars_test_annos_withlabels.mat": matlab(annotations=np.array([marks["test"]], kinds)),
    }, 3, {"train": 12, "test": 9}  # fmt: skip


def dogs(picture: Callable[[str], bytes]) -> tuple[dict[str, Files | bytes], int, dict[str, int]]:
    classes = ["n02085620-Chihuahua", "n02085782-Japanese_spaniel", "n02116738-African_hunting_dog"]
    rows = scaled(classes, "train", "test")
    names = [f"{kind}/{kind.split('-')[0]}_{n}.jpg" for n, (kind, _, _) in enumerate(rows)]
    lists = {}
    for split in ("train", "test"):
        chosen = [name for name, (_, of, _) in zip(names, rows, strict=True) if of == split]
        cells = np.empty((len(chosen), 1), object)
        cells[:, 0] = chosen
        labels = np.array([[classes.index(name.split("/")[0]) + 1] for name in chosen])
        lists[f"{split}_list.mat"] = matlab(file_list=cells, annotation_list=cells, labels=labels)
    images = {f"Images/{name}": picture(tag) for name, (_, _, tag) in zip(names, rows, strict=True)}
    return {"images.tar": images, "lists.tar": lists}, 3, {"train": 12, "test": 9}


def food(picture: Callable[[str], bytes], per_class: int) -> tuple[dict[str, Files | bytes], int, dict[str, int]]:
    classes = ["apple_pie", "baby_back_ribs", "baklava"]
    lists: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    members: Files = {}
    for label, kind in enumerate(classes):
        for split, count in (("train", 155), ("test", 2)):
            numbers = [str(10_000 * label + 31 * n + (5 if split == "test" else 0)) for n in range(count)]
            lists[split][kind] = [f"{kind}/{number}" for number in numbers]
            members |= {f"food-101/images/{kind}/{number}.jpg": picture(f"{kind}|{split}|{number}") for number in numbers}
    members |= {f"food-101/meta/{split}.json": json.dumps(found).encode() for split, found in lists.items()}
    members["food-101/meta/classes.txt"] = lines(classes)
    return {"food-101.tar.gz": members}, 3, {"train": 3 * per_class, "test": 6}


def caltech(picture: Callable[[str], bytes]) -> tuple[dict[str, Files | bytes], int, dict[str, int]]:
    classes = ["001.ak47", "002.american-flag", "257.clutter"]
    home = "256_ObjectCategories"
    members = {f"{home}/{kind}/{kind[:3]}_{n:04d}.jpg": picture(f"{kind}||{n}") for kind in classes for n in range(1, 84)}
    members |= {f"{home}/002.american-flag/RENAME2": b"#!/bin/sh", f"{home}/001.ak47/greg/vision309/001_0090.jpg": b"stray"}
    return {"256_ObjectCategories.tar": members}, 3, {"train": 180, "test": 60}


def cifar(picture: Callable[[str], bytes], hundred: bool) -> tuple[dict[str, Files | bytes], int, dict[str, int]]:
    """Pixel values tell: the first one is the class, the second the split (train 0, test 1), the third a counter."""
    classes = ["apple", "aquarium_fish", "baby"] if hundred else ["airplane", "automobile", "bird"]
    home = "cifar-100-binary" if hundred else "cifar-10-batches-bin"

    def batch(start: int, split: int) -> bytes:
        records = []
        for n in range(start, start + 6):
            plane = np.zeros((3, 32, 32), np.uint8)
            plane[:, 0, 0] = n % 3, split, n
            plane[0, 0, 1], plane[1, 1, 0] = 200, 100  # Red right of the corner, green below it.
            records.append(bytes([17, n % 3] if hundred else [n % 3]) + plane.tobytes())
        return b"".join(records)

    if hundred:
        members = {f"{home}/train.bin": batch(0, 0), f"{home}/test.bin": batch(50, 1), f"{home}/fine_label_names.txt": lines(classes),
                   f"{home}/coarse_label_names.txt": lines(["aquatic_mammals"])}  # fmt: skip
        return {"cifar-100-binary.tar.gz": members}, 3, {"train": 6, "test": 6}
    members = {f"{home}/data_batch_{number}.bin": batch(10 * number, 0) for number in range(1, 6)}
    members |= {f"{home}/test_batch.bin": batch(60, 1), f"{home}/batches.meta.txt": lines([*classes, ""]), f"{home}/readme.html": b"<html>"}
    return {"cifar-10-binary.tar.gz": members}, 3, {"train": 30, "test": 6}


def pets(picture: Callable[[str], bytes]) -> tuple[dict[str, Files | bytes], int, dict[str, int]]:
    classes = ["Abyssinian", "american_bulldog", "Bengal"]
    rows = scaled(classes, "train", "test")
    names = [f"{kind}_{n}" for n, (kind, _, _) in enumerate(rows)]
    annotations = {"annotations/README": b"read me", "annotations/._trainval.txt": b"\x00\x05\x16\x07"}
    for split, file in (("train", "trainval.txt"), ("test", "test.txt")):
        found = [(name, classes.index(kind) + 1) for name, (kind, of, _) in zip(names, rows, strict=True) if of == split]
        annotations[f"annotations/{file}"] = lines([f"{name} {label} {1 + (label == 2)} {label}" for name, label in reversed(found)])
    images = {f"images/{name}.jpg": picture(tag) for name, (_, _, tag) in zip(names, rows, strict=True)}
    return (
        {"images.tar.gz": {**images, "images/Abyssinian_100.mat": b"MATLAB"}, "annotations.tar.gz": annotations},
        3,
        {"train": 12, "test": 9},
    )


def photograph(tag: str) -> bytes:
    """A small real JPEG whose colour depends on the class in its tag."""
    kind = hashlib.sha256(tag.split("|")[0].encode()).digest()
    noise = np.frombuffer(hashlib.sha256(tag.encode()).digest() * 96, np.uint8).reshape(32, 32, 3) // 8
    raw = io.BytesIO()
    Image.fromarray(noise + np.frombuffer(kind[:3], np.uint8) // 2).save(raw, "JPEG")
    return raw.getvalue()


LAYOUTS: dict[str, Callable[[Callable[[str], bytes]], tuple[dict[str, Files | bytes], int, dict[str, int]]]] = {
    "cub_200_2011": birds, "fgvc_aircraft": aircraft, "flowers102": flowers, "dtd": textures, "indoor67": indoor, "stanford_cars": cars,
    "stanford_dogs": dogs, "food101_30": partial(food, per_class=30), "food101_150": partial(food, per_class=150), "caltech256": caltech,
    "cifar10": partial(cifar, hundred=False), "cifar100": partial(cifar, hundred=True), "oxford_pets": pets,
}  # fmt: skip
