"""The benchmark tasks: read from miniatures of their official layouts, counted, recorded, and opened as data."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rekindle import cli
from rekindle.data.formats.open import open_data
from rekindle.data.splits import split_key
from rekindle.data.tasks import TASKS, Task, download, find
from rekindle.data.tasks.benchmarks.food import chosen
from rekindle.data.tasks.fetch import HASHES
from rekindle.data.tasks.load import is_task
from rekindle.data.tasks.prepare import prepare
from rekindle.data.tasks.prepared import place, record
from rekindle.data.tasks.verify import verify
from rekindle.errors import UserError
from tests.data.faulty_server import PAGE, Served, Server, serving
from tests.data.miniatures import LAYOUTS, miniature, photograph
from tests.data.test_folders import each_says, says

TAGGED = sorted(TASKS.keys() - {"cifar10", "cifar100", "caltech256"})
OFFICIAL = {  # classes, train, val, test
    "cub_200_2011": (200, 5994, 0, 5794),
    "fgvc_aircraft": (100, 3334, 3333, 3333),
    "flowers102": (102, 1020, 1020, 6149),
    "dtd": (47, 1880, 1880, 1880),
    "indoor67": (67, 5360, 0, 1340),
    "stanford_cars": (196, 8144, 0, 8041),
    "stanford_dogs": (120, 12000, 0, 8580),
    "food101_30": (101, 3030, 0, 25250),
    "food101_150": (101, 15150, 0, 25250),
    "caltech256": (257, 15420, 0, 5140),
    "cifar10": (10, 50000, 0, 10000),
    "cifar100": (100, 50000, 0, 10000),
    "oxford_pets": (37, 3680, 0, 3669),
}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REKINDLE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(download, "WAIT", 0.0)


def small(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, picture: object = str.encode) -> Task:
    """Put a miniature in the task's place; its archives lie in `folder`."""
    task = miniature(name, folder, picture)  # type: ignore[arg-type]
    monkeypatch.setitem(TASKS, name, task)
    return task


def tree(folder: Path) -> list[str]:
    """Everything below a folder but locks."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix != ".lock")


def refused(name: str, *given: Path, **options: object) -> str:
    """Preparation fails with a sentence, and of the task nothing is there."""
    with pytest.raises(UserError) as caught:
        prepare(name, given, **options)  # type: ignore[arg-type]
    assert not place(name).exists() and not list(place(name).parent.glob("*.partial"))
    return str(caught.value)


def test_official_numbers() -> None:
    found = {name: (task.classes, *(task.counts.get(split, 0) for split in ("train", "val", "test"))) for name, task in TASKS.items()}
    assert found == OFFICIAL
    assert 5994 + 5794 == 11788 and 3334 + 3333 + 3333 == 10000 and 3 * 1880 == 5640 and 1020 + 1020 + 6149 == 8189


def test_every_file_has_addresses_and_all_but_three_a_published_hash() -> None:
    sources = [source for task in TASKS.values() for source in task.sources]
    assert all(
        source.urls and all(url.startswith(("http://", "https://")) and url.endswith("/" + source.file) for url in source.urls)
        for source in sources
    )
    assert {source.file for source in sources if not source.hash} == {"indoorCVPR_09.tar", "TrainImages.txt", "TestImages.txt"}
    assert all(len(source.hash) == len("md5:") + 32 for source in sources if source.hash)


def test_hashes_that_torchvision_publishes_too() -> None:
    from torchvision.datasets import DTD, Flowers102, Food101, OxfordIIITPet

    ours = {source.file: source.hash for task in TASKS.values() for source in task.sources}
    theirs = [*Flowers102._file_dict.values(), *OxfordIIITPet._RESOURCES, (DTD._URL, DTD._MD5), (Food101._URL, Food101._MD5)]
    assert all(ours[name.rsplit("/", 1)[-1]] == f"md5:{md5}" for name, md5 in theirs)


def test_a_miniature_for_every_task() -> None:
    assert LAYOUTS.keys() == TASKS.keys()


@pytest.mark.parametrize("name", sorted(TASKS))
def test_prepared_from_its_official_layout(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = small(name, tmp_path / "here", monkeypatch)
    folder = prepare(name, [tmp_path / "here"])
    found = record(folder)
    assert folder == tmp_path / "home" / "tasks" / name
    assert {split: len(samples) for split, samples in found["splits"].items()} == found["counts"] == task.counts
    assert len(found["classes"]) == task.classes
    listed = {picture for samples in found["splits"].values() for picture, _ in samples}
    assert {path.relative_to(folder).as_posix() for path in (folder / "pictures").rglob("*") if path.is_file()} == listed
    assert [source["file"] for source in found["sources"]] == [source.file for source in task.sources]
    for source in found["sources"]:
        assert source["sha256"] == hashlib.sha256((tmp_path / "here" / source["file"]).read_bytes()).hexdigest()
    assert subprocess.run(["sha256sum", "--check", "--quiet", "sha256sums.txt"], cwd=folder, check=False).returncode == 0
    assert verify(name)["pictures"] == len(listed)
    assert not list(folder.parent.glob("*.partial"))


@pytest.mark.parametrize("name", TAGGED)
def test_each_picture_stands_in_its_class_and_split(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(name, tmp_path / "here", monkeypatch)
    folder = prepare(name, [tmp_path / "here"])
    found = record(folder)
    for split, samples in found["splits"].items():
        for picture, label in samples:
            kind, of, _ = (folder / picture).read_text().split("|")
            assert (found["classes"][label], split) == (kind, of)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_pictures_are_the_records(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(name, tmp_path / "here", monkeypatch)
    folder = prepare(name, [tmp_path / "here"])
    found = record(folder)
    counters = []
    for split, samples in found["splits"].items():
        for picture, label in samples:
            pixels = np.asarray(Image.open(folder / picture))
            assert pixels.shape == (32, 32, 3) and pixels[0, 0, 0] == label and pixels[0, 0, 1] == (split == "test")
            assert pixels[0, 1].tolist() == [200, 0, 0] and pixels[1, 0].tolist() == [0, 100, 0]
            counters.append(int(pixels[0, 0, 2]))
    assert len(set(counters)) == len(counters)


def test_caltech_takes_the_same_pictures_everywhere_and_leaves_strays_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small("caltech256", tmp_path / "here", monkeypatch)
    folder = prepare("caltech256", [tmp_path / "here"])
    found = record(folder)
    names = {split: [picture for picture, _ in samples] for split, samples in found["splits"].items()}
    ranked = sorted((f"001.ak47/001_{n:04d}.jpg" for n in range(1, 84)), key=lambda name: split_key(0, "caltech256", name))
    assert {name for name in names["test"] if "ak47" in name} == {f"pictures/{name}" for name in ranked[:20]}
    assert {name for name in names["train"] if "ak47" in name} == {f"pictures/{name}" for name in ranked[20:80]}
    assert Counter(label for _, label in found["splits"]["train"]) == {0: 60, 1: 60, 2: 60}
    for samples in found["splits"].values():
        assert all((folder / picture).read_text().startswith(found["classes"][label]) for picture, label in samples)


def test_the_food_subsets_are_fixed_and_nested() -> None:
    names = [f"apple_pie/{n}" for n in range(750)]
    few, many = chosen(names, 30), chosen(names, 150)
    assert len(set(few)) == 30 and len(set(many)) == 150 and set(few) < set(many) < set(names)
    assert chosen(list(reversed(names)), 30) == few == sorted(few)
    by_hand = sorted(names, key=lambda name: hashlib.blake2b(f"0\x1ffood101\x1f{name}".encode(), digest_size=16).digest())
    assert few == sorted(by_hand[:30])


@pytest.mark.parametrize("name", ["cub_200_2011", "flowers102", "stanford_cars"])
def test_downloaded_whole_through_the_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = small(name, tmp_path / "there", monkeypatch)
    with serving({path.name: Served(path.read_bytes()) for path in (tmp_path / "there").iterdir()}) as server:
        at(server, task, monkeypatch)
        assert cli.main(["data", "prepare", name]) == 0
        assert says(capsys.readouterr().out, name, "prepared", f"{task.classes} classes")
        assert cli.main(["data", "prepare", name, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["counts"] == task.counts
        assert len(server.requests) == len(task.sources)
    assert cli.main(["data", "verify", name]) == 0
    assert tree(tmp_path / "home" / "downloads") == sorted(source.file for source in task.sources)


def at(server: Server, task: Task, monkeypatch: pytest.MonkeyPatch, *before: str) -> None:
    """Let the task's files have addresses on a server, after others."""
    sources = tuple(replace(source, urls=(*before, server.url(source.file))) for source in task.sources)
    monkeypatch.setitem(TASKS, task.name, replace(task, sources=sources))


FAULTS = {
    "missing": (lambda good: Served(status=404), "404"),
    "page": (lambda good: Served(PAGE, kind="text/html"), "web page"),
    "wrong": (lambda good: Served(good[::-1]), "hash"),
    "cut": (lambda good: Served(good, cut=0.64, ranges=False), "connection broke"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_server_ends_in_words_status_2_and_nothing_half_done(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = small("flowers102", tmp_path / "there", monkeypatch, lambda tag: tag.encode() + os.urandom(2000))
    make, why = FAULTS[fault]
    files = {path.name: Served(path.read_bytes()) for path in (tmp_path / "there").iterdir()}
    files["102flowers.tgz"] = make(files["102flowers.tgz"].content)
    with serving(files) as server:
        at(server, task, monkeypatch)
        assert cli.main(["data", "prepare", "flowers102"]) == 2
        said = capsys.readouterr().err
        for parts in (
            ("flowers102", "1", "3 files"), (server.url("102flowers.tgz"), why), ("102flowers.tgz", task.sources[0].hash.replace(":", " ")),
            ("rekindle data prepare flowers102 --from 102flowers.tgz",),
        ):  # fmt: skip
            assert says(said, *parts), parts
        assert tree(tmp_path / "home") == ["downloads", "downloads/imagelabels.mat", "downloads/setid.mat", "tasks"]
        # The command that was named, once the file was got by other means.
        assert cli.main(["data", "prepare", "flowers102", "--from", str(tmp_path / "there" / "102flowers.tgz")]) == 0


def test_a_mirror_after_a_faulty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = small("cub_200_2011", tmp_path / "there", monkeypatch)
    with serving({"CUB_200_2011.tgz": Served((tmp_path / "there" / "CUB_200_2011.tgz").read_bytes()), "bad": Served(PAGE)}) as server:
        at(server, task, monkeypatch, "http://127.0.0.1:9/CUB_200_2011.tgz", server.url("bad"))
        assert record(prepare("cub_200_2011"))["sources"][0]["from"] == server.url("CUB_200_2011.tgz")


def test_a_file_without_a_published_hash_is_held_to_the_first_one_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    small("indoor67", here, monkeypatch)
    assert not (tmp_path / "home" / "seen.json").exists()
    folder = prepare("indoor67", [here])
    seen = HASHES.read(tmp_path / "home" / "seen.json")
    assert seen == {path.name: f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" for path in here.iterdir()}
    shutil.rmtree(folder)
    text = (here / "TrainImages.txt").read_bytes()
    (here / "TrainImages.txt").write_bytes(text + b"\r\n")
    assert says(refused("indoor67", here), here / "TrainImages.txt", "sha256", tmp_path / "home" / "seen.json")
    (here / "TrainImages.txt").write_bytes(text)
    prepare("indoor67", [here])


def test_a_bad_file_without_a_published_hash_is_neither_recorded_nor_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "there"
    task = small("indoor67", there, monkeypatch)
    files = {path.name: Served(path.read_bytes()) for path in there.iterdir()}
    good = files["indoorCVPR_09.tar"].content
    files["indoorCVPR_09.tar"].content = good[: int(0.64 * len(good))]
    with serving(files) as server:
        at(server, task, monkeypatch)
        refused("indoor67")
        assert not (tmp_path / "home" / "seen.json").exists()
        assert tree(tmp_path / "home" / "downloads") == []
        files["indoorCVPR_09.tar"].content = good
        prepare("indoor67")


def test_counts_other_than_the_official_ones_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = small("dtd", tmp_path / "here", monkeypatch)
    monkeypatch.setitem(TASKS, "dtd", replace(task, counts={"train": 12, "val": 6, "test": 10}))
    assert says(refused("dtd", tmp_path / "here"), "dtd", "3 classes", "12 train, 6 val, 10 test", "12 train, 6 val, 9 test")
    monkeypatch.setitem(TASKS, "dtd", replace(task, classes=47))
    assert says(refused("dtd", tmp_path / "here"), "dtd", "47 classes")


@pytest.mark.parametrize("name", sorted(TASKS))
def test_real_numbers_are_asked_of_real_archives(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the unscaled entry every miniature is refused: its lists are short."""
    official = TASKS[name]
    task = small(name, tmp_path / "here", monkeypatch)
    monkeypatch.setitem(TASKS, name, replace(official, sources=task.sources))
    assert says(refused(name, tmp_path / "here"), name, f"{official.classes} classes")


def rebuilt(archive: Path, leave_out: str = "", swap: tuple[bytes, bytes] = (b"", b"")) -> None:
    """Write a tar.gz again without one member, or with other bytes in the text files."""
    import tarfile

    raw = io.BytesIO()
    with tarfile.open(archive) as old, tarfile.open(fileobj=raw, mode="w:gz") as new:
        for member in old:
            content = old.extractfile(member).read()  # type: ignore[union-attr]
            if member.name.endswith(".txt") and swap[0]:
                content = content.replace(*swap)
            member.size = len(content)
            if leave_out not in member.name or not leave_out:
                new.addfile(member, io.BytesIO(content))
    archive.write_bytes(raw.getvalue())


def test_lists_that_do_not_fit_the_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small("dtd", tmp_path / "here", monkeypatch)
    archive = tmp_path / "here" / "dtd-r1.0.1.tar.gz"
    whole = archive.read_bytes()
    for changes, expected in (
        (
            {"leave_out": "images/banded/banded_0000.jpg"},
            ("1", "0/dtd/images/banded/banded_0000.jpg", "not in the archives"),
        ),
        ({"leave_out": "labels/train1.txt"}, ("no labels/train1.txt",)),
        ({"swap": (b"banded/banded_0000.jpg", b"banded/banded_0001.jpg")}, ("banded/banded_0001.jpg", "twice")),
        ({"swap": (b"cracked/cracked_0018.jpg", b"other/cracked_0018.jpg")}, ("classes",)),
    ):
        archive.write_bytes(whole)
        rebuilt(archive, **changes)  # type: ignore[arg-type]
        assert says(refused("dtd", archive, repacked=True), *expected)


def test_an_archive_of_another_hash_is_refused_unless_it_is_said_to_be_repacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tarfile

    small("stanford_cars", tmp_path / "here", monkeypatch)
    kaggle = tmp_path / "cars.zip"
    with zipfile.ZipFile(kaggle, "w") as new:
        for path in (tmp_path / "here").iterdir():
            if path.suffix == ".mat":
                new.write(path, f"stanford-cars/{path.name}")
                continue
            with tarfile.open(path) as old:
                for member in old:
                    new.writestr(f"stanford-cars/{member.name}", old.extractfile(member).read())  # type: ignore[union-attr]
    assert says(refused("stanford_cars", kaggle), kaggle, "none", "stanford_cars")
    found = record(prepare("stanford_cars", [kaggle], repacked=True))
    assert found["counts"] == {"train": 12, "test": 9} and found["sources"][0]["from"] == str(kaggle)
    assert sorted({picture.split("/")[1] for samples in found["splits"].values() for picture, _ in samples}) == ["cars_test", "cars_train"]
    assert verify("stanford_cars")["pictures"] == 21


def test_given_files_are_known_by_name_by_hash_or_as_the_only_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    small("stanford_cars", here, monkeypatch)
    for number, path in enumerate(sorted(here.iterdir())):
        path.rename(here / f"download-{number}{''.join(path.suffixes)}")
    assert record(prepare("stanford_cars", sorted(here.iterdir())))["counts"] == {"train": 12, "test": 9}
    small("dtd", tmp_path / "dtd", monkeypatch)
    cut = tmp_path / "textures.tar.gz"
    cut.write_bytes((tmp_path / "dtd" / "dtd-r1.0.1.tar.gz").read_bytes()[:-10])
    assert says(refused("dtd", cut), cut, "md5")
    assert says(refused("dtd", tmp_path / "nowhere.tgz"), "--from", tmp_path / "nowhere.tgz", "exist")
    assert says(refused("dtd", here), here, "none", "dtd-r1.0.1.tar.gz")


def test_archives_in_another_layout_end_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small("cub_200_2011", tmp_path / "here", monkeypatch)
    archive = tmp_path / "here" / "CUB_200_2011.tgz"
    whole = archive.read_bytes()
    for changes, expected in (
        ({"leave_out": "CUB_200_2011/classes.txt"}, ("cub_200_2011", "layout", "FileNotFoundError")),
        ({"swap": (b"21 3", b"21 three")}, ("cub_200_2011", "layout", "ValueError")),
        ({"swap": (b"21 3", b"21 4")}, ("image_class_labels.txt", "class 4", "3")),
        ({"swap": (b"21 3", b"")}, ("cub_200_2011", "layout", "KeyError")),
        ({"swap": (b"21 3", b"21")}, ("line 21", "image_class_labels.txt", "1", "2")),
    ):
        archive.write_bytes(whole)
        rebuilt(archive, **changes)  # type: ignore[arg-type]
        assert says(refused("cub_200_2011", archive, repacked=True), *expected)
    small("flowers102", tmp_path / "flowers", monkeypatch)
    (tmp_path / "flowers" / "setid.mat").write_bytes(b"MATLAB 5.0 MAT-file, but cut")
    assert says(refused("flowers102", *sorted((tmp_path / "flowers").iterdir()), repacked=True), "setid.mat", "no MATLAB file")


@pytest.mark.parametrize("evil", ["dots", "link", "bomb"])
def test_a_hostile_archive_is_refused_whole(evil: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tarfile

    small("dtd", tmp_path / "here", monkeypatch)
    monkeypatch.setattr("rekindle.data.tasks.archives.FLOOR", 2**20)
    archive = tmp_path / "here" / "dtd-r1.0.1.tar.gz"
    raw = io.BytesIO()
    with tarfile.open(archive) as old, tarfile.open(fileobj=raw, mode="w:gz") as new:
        for member in old:
            new.addfile(member, old.extractfile(member))
        bad = tarfile.TarInfo("../../../escaped.jpg" if evil == "dots" else "dtd/images/bad.jpg")
        bad.size = {"dots": 3, "link": 0, "bomb": 5 * 2**20}[evil]
        if evil == "link":
            bad.type, bad.linkname = tarfile.SYMTYPE, "/etc/passwd"
        new.addfile(bad, io.BytesIO(bytes(bad.size)))
    archive.write_bytes(raw.getvalue())
    assert {"dots": "leads out", "link": "not safe", "bomb": "a bomb?"}[evil] in refused("dtd", archive, repacked=True)
    assert not list(tmp_path.rglob("escaped.jpg"))


@pytest.mark.parametrize("room", [200, 400, 900])
def test_a_full_disk_at_any_stage_leaves_nothing_half_done(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The archive takes 270 KiB and what it holds as much again: too little room to download, to unpack, and enough."""
    task = small("dtd", tmp_path / "there", monkeypatch, lambda tag: tag.encode() + os.urandom(9500))
    disk = tmp_path / "home"
    disk.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={room}k", "tmpfs", disk], check=False, capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        with serving({"dtd-r1.0.1.tar.gz": Served((tmp_path / "there" / "dtd-r1.0.1.tar.gz").read_bytes())}) as server:
            at(server, task, monkeypatch)
            status = cli.main(["data", "prepare", "dtd"])
        said = capsys.readouterr().err
        if room == 900:
            assert status == 0 and verify("dtd")["pictures"] == 27
            return
        assert status == 2 and says(said, "room", "--root", "REKINDLE_HOME")
        assert tree(disk) == ["downloads", *(["downloads/dtd-r1.0.1.tar.gz"] if room == 400 else []), "tasks"]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_folder_of_ones_own_in_the_way_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small("dtd", tmp_path / "here", monkeypatch)
    place("dtd").mkdir(parents=True)
    (place("dtd") / "mine.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"tasks/dtd\b.*\bway\b"):
        prepare("dtd", [tmp_path / "here"])
    assert (place("dtd") / "mine.jpg").read_bytes() == b"mine"


def test_verify_names_what_is_missing_or_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small("dtd", tmp_path / "here", monkeypatch)
    assert cli.main(["data", "verify", "dtd"]) == 2
    assert says(capsys.readouterr().err, "rekindle data prepare dtd")
    folder = prepare("dtd", [tmp_path / "here"])
    assert cli.main(["data", "verify", "dtd", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == 27
    pictures = sorted((folder / "pictures").rglob("*.jpg"))
    pictures[0].unlink()
    pictures[1].write_bytes(b"other")
    assert cli.main(["data", "verify", "dtd"]) == 2
    said = capsys.readouterr().err
    assert says(said, "2", "27 pictures") and says(said, pictures[0], "missing") and says(said, pictures[1], "changed")


def test_verify_sees_an_edited_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small("dtd", tmp_path / "here", monkeypatch)
    folder = prepare("dtd", [tmp_path / "here"])
    whole, sums = (folder / "task.json").read_text(), (folder / "sha256sums.txt").read_text()
    found = json.loads(whole)
    found["splits"]["train"].pop()
    for name, text, expected in (
        ("task.json", json.dumps(found), ("task.json", "11 train", "12 train")),
        ("task.json", whole[:100], ("task.json", "damaged")),
        ("task.json", "[]", ("task.json", "damaged")),
        (
            "task.json",
            whole.replace("pictures/banded/banded_0000.jpg", "pictures/banded/other.jpg"),
            ("task.json", "sha256sums.txt", "different"),
        ),
        ("sha256sums.txt", sums.replace("a", "b"), ("sha256sums.txt", "changed")),
    ):
        (folder / "task.json").write_text(whole)
        (folder / "sha256sums.txt").write_text(sums)
        (folder / name).write_text(text)
        with pytest.raises(UserError) as caught:
            verify("dtd")
        assert says(str(caught.value), *expected)


def test_opened_with_the_official_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small("dtd", tmp_path / "here", monkeypatch)
    folder = prepare("dtd", [tmp_path / "here"])
    for data in ("dtd", folder):
        found = open_data(data)
        assert found.classes == ["banded", "blotchy", "cracked"]
        assert {name: len(split.paths) for name, split in found.splits.items()} == {"train": 12, "val": 6, "test": 9}
        for name, split in found.splits.items():
            for path, label in zip(split.paths, split.labels.tolist(), strict=True):
                assert path.read_text().split("|")[:2] == [found.classes[label], name]
    joined = open_data("dtd+val", val_fraction=0.5)
    assert {name: len(split.paths) for name, split in joined.splits.items()} == {"train": 9, "val": 9, "test": 9}
    assert {path.read_text().split("|")[1] for name in ("train", "val") for path in joined.splits[name].paths} == {"train", "val"}


def test_validation_from_train_and_subsets_follow_the_rule_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small("food101_30", tmp_path / "here", monkeypatch)
    prepare("food101_30", [tmp_path / "here"])
    found = open_data("food101_30", seed=3, val_fraction=0.2, per_class=10)
    assert found.counts()["train"] == dict.fromkeys(found.classes, 10) and found.counts()["val"] == dict.fromkeys(found.classes, 2)
    assert found.counts()["test"] == dict.fromkeys(found.classes, 2)
    pool = [picture for picture, label in record(place("food101_30"))["splits"]["train"] if label == 1]
    subset = sorted(pool, key=lambda name: split_key(3, "subset", name))[:10]
    val = set(sorted({*pool} - {*subset}, key=lambda name: split_key(3, "val", name))[:2])
    assert {found.relative(path) for path in found.splits["val"].paths if "baby_back_ribs" in str(path)} == val
    assert {found.relative(path) for path in found.splits["train"].paths if "baby_back_ribs" in str(path)} == set(subset)
    wider = open_data("food101_30", seed=3, per_class=20)
    assert {*found.splits["train"].paths} < {*wider.splits["train"].paths}


def test_classes_keep_the_official_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small("oxford_pets", tmp_path / "here", monkeypatch)
    prepare("oxford_pets", [tmp_path / "here"])
    assert open_data("oxford_pets").classes == ["Abyssinian", "american_bulldog", "Bengal"]


def test_what_counts_as_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small("dtd", tmp_path / "here", monkeypatch)
    monkeypatch.chdir(tmp_path)
    assert is_task("dtd") and is_task("dtd+val") and not is_task("photos") and not is_task(tmp_path)
    with pytest.raises(UserError, match=r"\bdtd\b.*not prepared.*rekindle data prepare dtd"):
        open_data("dtd")
    prepare("dtd", [tmp_path / "here"])
    assert is_task(place("dtd"))
    Path("dtd").mkdir()
    assert not is_task("dtd")
    with pytest.raises(UserError, match=r"'dtb'.*mean dtd\b"):
        find("dtb")


def test_fit_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import rekindle

    small("dtd", tmp_path / "here", monkeypatch, photograph)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="rekindle data prepare dtd"):
        rekindle.fit("dtd", model="tiny", out=tmp_path / "runs")
    prepare("dtd", [tmp_path / "here"])
    run = rekindle.fit("dtd", model="tiny", weights="none", epochs=1, lr=0.01, batch_size=6, image_size=32, out=tmp_path / "runs")
    assert run.result["classes"] == ["banded", "blotchy", "cracked"]
    assert run.result["val"]["count"] == 6 and run.result["test"]["count"] == 9
    assert run.folder.name.startswith("dtd-tiny")


def test_list_and_info(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    task = small("dtd", tmp_path / "here", monkeypatch)
    prepare("dtd", [tmp_path / "here"])
    assert cli.main(["data", "list", "--json"]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert found.keys() == TASKS.keys() and found["dtd"]["prepared"] and not found["cifar10"]["prepared"]
    assert cli.main(["data", "info", "dtd", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["prepared"] and about["classes"] == 3 and about["licence"] == task.licence and about["sources"][0]["sha256"]
    assert cli.main(["data", "info", "indoor67"]) == 0
    said = capsys.readouterr().out
    assert says(said, "not prepared", "rekindle data prepare indoor67") and "no published hash" in said and "5360 train, 1340 test" in said
    assert cli.main(["data", "list"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in TASKS)
    assert cli.main(["data", "info", "nothing"]) == 2


COMMAND = """
import sys
from dataclasses import replace
from rekindle.cli import main
from rekindle.data.tasks import TASKS

source = replace(TASKS["dtd"].sources[0], urls=(sys.argv[1],), hash=sys.argv[2])
TASKS["dtd"] = replace(TASKS["dtd"], sources=(source,), classes=3, counts={"train": 12, "val": 6, "test": 9})
sys.exit(main(["data", "prepare", "dtd"]))
"""


@pytest.fixture
def slow_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serves the miniature dtd, which has its address there, in some seconds."""
    task = small("dtd", tmp_path / "there", monkeypatch, lambda tag: tag.encode() + os.urandom(50_000))
    content = (tmp_path / "there" / "dtd-r1.0.1.tar.gz").read_bytes()
    with serving({"dtd-r1.0.1.tar.gz": Served(content, pause=0.1)}) as server:
        at(server, task, monkeypatch)
        yield server


def begun(server: Server) -> subprocess.Popen[str]:
    """Another process that prepares dtd, in the midst of its download."""
    (source,) = TASKS["dtd"].sources
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, source.urls[0], source.hash], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    until = time.monotonic() + 60
    while not any(path.stat().st_size > 300_000 for path in place("dtd").parents[1].rglob("*.part")) and time.monotonic() < until:
        time.sleep(0.02)
    return process


class Notes:
    """A listener that keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, what: str, done: int, total: int) -> None:
        assert 0 <= done <= total


def test_two_processes_prepare_it_once(tmp_path: Path, slow_server: Server) -> None:
    other, notes = begun(slow_server), Notes()
    folder = prepare("dtd", listener=notes)
    assert each_says(notes.notes, ("another process", "dtd"))
    assert says(other.communicate(timeout=60)[0], "dtd", "prepared", "3 classes") and other.returncode == 0
    assert len(slow_server.requests) == 1 and len(list((folder / "pictures").rglob("*.jpg"))) == 27


def test_killed_in_the_middle_and_started_again(tmp_path: Path, slow_server: Server) -> None:
    other = begun(slow_server)
    other.kill()
    other.communicate(timeout=60)
    assert not place("dtd").exists()
    slow_server.files["dtd-r1.0.1.tar.gz"].pause = 0.0
    folder = prepare("dtd", listener=Notes())
    assert slow_server.requests[-1][1] is not None
    assert tree(tmp_path / "home" / "downloads") == ["dtd-r1.0.1.tar.gz"] and len(list((folder / "pictures").rglob("*.jpg"))) == 27


def test_killed_while_it_was_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed process leaves beside the task's place is cleared by the next."""
    small("dtd", tmp_path / "here", monkeypatch)
    stale = place("dtd").with_name(".dtd.partial")
    (stale / "done" / "pictures").mkdir(parents=True)
    (stale / "done" / "task.json").write_text("{}")
    prepare("dtd", [tmp_path / "here"])
    assert not stale.exists() and verify("dtd")["pictures"] == 27
