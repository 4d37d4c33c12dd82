"""The cache: what it holds is what decoding gives, whoever builds it, and whatever happens to its files."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import rekindle
from rekindle import locks
from rekindle.cli import main
from rekindle.data import Pixels
from rekindle.data.cache import shards
from rekindle.data.cache.cache import Cache, Settings
from rekindle.data.cache.decode import decode
from rekindle.errors import UserError
from tests.toys import picture_folder

EDGE = 24


def pictures(root: Path, count: int, start: int = 0) -> list[Path]:
    root.mkdir(exist_ok=True)
    rng = np.random.default_rng(start)
    paths = []
    for index in range(start, start + count):
        paths.append(root / f"{index}.png")
        Image.fromarray(rng.integers(0, 256, (30 + index % 7, 50 - index % 5, 3), dtype=np.uint8)).save(paths[-1])
    return paths


@pytest.fixture
def store(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "home" / "pixels")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each picture that is decoded."""
    calls: list[int] = []
    monkeypatch.setattr("rekindle.data.cache.pixels.decode", lambda *arguments: calls.append(0) or decode(*arguments))
    return calls


def load(paths: list[Path], store: Cache | None, notes: list[str] | None = None, edge: int = EDGE) -> Pixels:
    """Load, and compare every picture with what decoding it alone gives."""
    found = Pixels.load(paths, edge, cache=store, note=(notes if notes is not None else []).append)
    assert len(found) == len(paths)
    for index, path in enumerate(paths):
        assert (found[index] == decode(path, edge)).all(), path
        assert tuple(found.shapes[index]) == found[index].shape[:2]
    return found


def files(store: Cache, suffix: str = ".arrow") -> list[Path]:
    return sorted(store.root.glob(f"*/*{suffix}"))


def test_a_second_load_decodes_nothing_and_a_larger_one_only_what_is_new(store: Cache, decoded: list[int], tmp_path: Path) -> None:
    paths = pictures(tmp_path / "a", 9)
    first = load(paths, store)
    assert len(decoded) == 9
    assert load(paths[::-1], store).hashes == first.hashes[::-1]
    assert len(decoded) == 9
    load(paths[:3] + pictures(tmp_path / "a", 4, start=9), store)
    assert len(decoded) == 13
    assert len(files(store)) == 2
    assert load(paths, None).hashes == first.hashes


def test_renamed_and_equal_files_share_a_picture_and_changed_ones_do_not(store: Cache, decoded: list[int], tmp_path: Path) -> None:
    one, two = pictures(tmp_path / "a", 2)
    twin = one.with_name("twin.png")
    twin.write_bytes(one.read_bytes())
    load([one, twin, two], store)
    assert len(decoded) == 2
    one.rename(tmp_path / "elsewhere.png")
    load([tmp_path / "elsewhere.png"], store)
    assert len(decoded) == 2
    two.write_bytes(pictures(tmp_path / "b", 1, start=5)[0].read_bytes())
    load([two], store)
    assert len(decoded) == 3


def test_each_setting_has_its_own_pictures(store: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = pictures(tmp_path / "a", 2)
    load(paths, store)
    load(paths, store, edge=EDGE + 1)
    Pixels.load(paths, EDGE, "bicubic", cache=store)
    assert len(list(store.root.iterdir())) == 3
    names = {Settings(EDGE, "bilinear").name, Settings(EDGE, "bilinear", rules=99).name, Settings(EDGE, "bilinear", pillow="1.0").name}
    assert len(names) == 3


def test_shards_are_arrow_files_that_anybody_can_read_and_are_mapped_without_a_copy(store: Cache, tmp_path: Path) -> None:
    paths = pictures(tmp_path / "a", 5)
    found = load(paths, store)
    [path] = files(store)
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    assert table.column_names == ["digest", "crc32", "height", "width", "pixels"]
    for row in table.to_pylist():
        image = np.frombuffer(row["pixels"], np.uint8).reshape(row["height"], row["width"], 3)
        assert (image == found[found.hashes.index(row["digest"])]).all()
    assert not found[0].flags.writeable
    mapped = [line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines() if path.name in line]
    assert any(int(start, 16) <= found[0].ctypes.data < int(end, 16) for start, end in mapped)


def test_batches_are_streamed(store: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "BATCH_BYTES", 10_000)
    load(pictures(tmp_path / "a", 20), store)
    reader = pa.ipc.open_file(pa.memory_map(str(files(store)[0])))
    assert reader.num_record_batches >= 4
    assert max(reader.get_batch(i).nbytes for i in range(reader.num_record_batches)) < 20_000


def test_progress_counts_every_picture_once_cached_or_not(store: Cache, tmp_path: Path) -> None:
    paths = pictures(tmp_path / "a", 5)
    load(paths[:2], store)
    for _ in range(2):
        told: list[int] = []
        Pixels.load([*paths, paths[4]], EDGE, cache=store, progress=told.append)
        assert told == [1, 2, 3, 4, 5, 6]


def test_broken_pictures_are_named_each_time_and_the_good_ones_kept(store: Cache, decoded: list[int], tmp_path: Path) -> None:
    good = pictures(tmp_path / "a", 3)
    bad = tmp_path / "a" / "bad.png"
    bad.write_bytes(b"hello")
    again = tmp_path / "a" / "bad too.png"
    again.write_bytes(b"hello")
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            Pixels.load([bad, *good, again, tmp_path / "gone.png"], EDGE, cache=store)
        reason = "not a picture that Pillow knows, or a damaged one"
        assert str(caught.value).splitlines() == [
            "3 images cannot be read; repair or remove, then start again:", f"  {bad}: {reason}", f"  {again}: {reason}",
            f"  {tmp_path / 'gone.png'}: No such file or directory",
        ]  # fmt: skip
    decoded.clear()
    load(good, store)
    assert decoded == []
    with pytest.raises(UserError, match="1 image cannot be read"):
        Pixels.load([bad], EDGE, cache=Cache(tmp_path / "fresh"))
    assert files(Cache(tmp_path / "fresh"), "*") != []
    assert files(Cache(tmp_path / "fresh")) == files(Cache(tmp_path / "fresh"), ".partial") == []


def half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def other_bit(path: Path) -> None:
    """One bit of the pixels of the last picture."""
    whole = bytearray(path.read_bytes())
    shard = shards.Shard.open(path)
    row = max(shard.rows.values(), key=lambda row: row.offset)
    whole[row.offset + 7] ^= 16
    path.write_bytes(whole)


def other_columns(path: Path) -> None:
    table = pa.table({"digest": ["x"]})
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize("damage", [half, empty, other_bit, other_columns])
def test_a_damaged_shard_is_named_and_built_anew(damage: Any, store: Cache, decoded: list[int], tmp_path: Path) -> None:
    paths = pictures(tmp_path / "a", 6)
    load(paths, store)
    [path] = files(store)
    damage(path)
    notes: list[str] = []
    load(paths, store, notes)
    assert len(notes) == 1
    assert notes[0].startswith(f"the cache file {path} is damaged (")
    assert len(decoded) == 12
    assert not path.exists()
    notes.clear()
    load(paths, store, notes)
    assert notes == []
    assert len(decoded) == 12


def test_a_shard_that_contradicts_itself_is_damaged(tmp_path: Path) -> None:
    for pixels, height, crc in ((b"123", 1, 0), (b"123456", 1, 0), (b"123", -1, 0), (b"123", None, 0)):
        values = zip(("d", crc, height, 1, pixels), shards._schema(), strict=True)
        batch = pa.record_batch([pa.array([value], field.type) for value, field in values], schema=shards._schema())
        path = tmp_path / "x.arrow"
        with pa.ipc.new_file(str(path), shards._schema()) as writer:
            writer.write_batch(batch)
        if (pixels, height) == (b"123", 1):
            assert not shards.Shard.open(path).is_whole("d")
        else:
            with pytest.raises(shards.Damaged):
                shards.Shard.open(path)


BUILD = """
import json, sys, time
from pathlib import Path
from rekindle.data import Pixels
from rekindle.data.cache import pixels
from rekindle.data.cache.cache import Cache
decode, calls = pixels.decode, []
def slow(*arguments):
    calls.append(0)
    time.sleep(0.02)
    return decode(*arguments)
pixels.decode = slow
notes = []
paths = sorted(Path(sys.argv[2]).iterdir())
print("ready", flush=True)
sys.stdin.readline()
found = Pixels.load(paths, 24, cache=Cache(Path(sys.argv[1])), note=notes.append, threads=2)
print(json.dumps([len(calls), notes, sum(int(found[i].sum()) for i in range(len(found)))]))
"""


def builder(store: Cache, folder: Path) -> "subprocess.Popen[str]":
    """A process that is ready to build, and waits for a line."""
    started = subprocess.Popen(
        [sys.executable, "-c", BUILD, str(store.root), str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    return started


def test_two_processes_that_build_at_once_decode_each_picture_once(store: Cache, tmp_path: Path) -> None:
    paths = pictures(tmp_path / "a", 30)
    both = [builder(store, tmp_path / "a") for _ in range(2)]
    for one in both:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    results = [json.loads(one.communicate(timeout=60)[0]) for one in both]
    assert sorted(calls for calls, _, _ in results) == [0, 30]
    waited = [notes for calls, notes, _ in results if calls == 0]
    assert waited[0] == [] or "another process is filling the cache" in waited[0][0]
    total = sum(int(decode(path, EDGE).sum()) for path in paths)
    assert [result[2] for result in results] == [total, total]
    assert len(files(store)) == 1


def test_kill_9_while_building_leaves_nothing_that_is_believed(store: Cache, tmp_path: Path) -> None:
    paths = pictures(tmp_path / "a", 200)
    process = builder(store, tmp_path / "a")
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while not files(store, ".partial"):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert files(store) == []
    assert len(files(store, ".partial")) == 1
    notes: list[str] = []
    load(paths, store, notes)
    assert notes == []
    assert files(store, ".partial") == []
    assert len(files(store)) == 1


def test_clearing_removes_what_a_killed_process_left(store: Cache, tmp_path: Path) -> None:
    load(pictures(tmp_path / "a", 2), store)
    (files(store)[0].parent / "0123.partial").write_bytes(bytes(1000))
    assert store.clear()[1] == 0
    assert list(store.root.iterdir()) == []


def test_an_interrupted_build_leaves_nothing(store: Cache, tmp_path: Path) -> None:
    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pixels.load(pictures(tmp_path / "a", 50), EDGE, cache=store, progress=interrupt)
    assert files(store) == files(store, ".partial") == []
    load(pictures(tmp_path / "a", 50), store)


def used_at(path: Path, when: float) -> None:
    os.utime(path, (when, when))


def test_the_least_recently_used_shards_go_first_and_none_that_is_in_use(store: Cache, decoded: list[int], tmp_path: Path) -> None:
    sets = [pictures(tmp_path / name, 4, start) for name, start in (("a", 0), ("b", 4), ("c", 8))]
    paths = []
    for group in sets:
        before = set(files(store))
        load(group, store)
        paths += set(files(store)) - before
    for when, path in enumerate(paths):
        used_at(path, 1000.0 + when)
    load(sets[0], store)
    assert paths[0].stat().st_mtime > 2000, "a load marks what it used"
    two = Cache(store.root, limit=sum(path.stat().st_size for path in paths) - 1)
    assert two.trim() == [paths[1]]
    held = load(sets[2], store)
    used_at(paths[2], 5.0)
    assert Cache(store.root, limit=0).trim() == [paths[0]], "the oldest is held by a live object"
    assert held[0].any()
    assert files(store) == [paths[2]]
    del held
    assert Cache(store.root, limit=0).trim() == [paths[2]]


def test_a_shard_of_another_live_process_stays(store: Cache, tmp_path: Path) -> None:
    load(pictures(tmp_path / "a", 2), store)
    [path] = files(store)
    code = f"from rekindle.data.cache.shards import Shard; from pathlib import Path; s = Shard.open(Path({str(path)!r}))"
    code += "; print('open', flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    assert store.listing()[0]["shards"][0]["in_use"]
    assert store.clear() == (0, path.stat().st_size)
    process.kill()
    process.communicate()
    assert store.clear()[1] == 0
    assert not path.exists()


def test_data_above_the_limit_is_used_but_not_kept(store: Cache, tmp_path: Path) -> None:
    paths = pictures(tmp_path / "a", 5)
    notes: list[str] = []
    load(paths, Cache(store.root, limit=1000), notes)
    assert notes == ["5 decoded pictures exceed the cache's limit of 1e-06 GB (REKINDLE_CACHE_GB), so they are not kept."]
    assert files(store) == files(store, ".partial") == []


@pytest.mark.parametrize("text", ["many", "-1", "nan"])
def test_a_limit_that_is_no_number_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REKINDLE_CACHE_GB", text)
    with pytest.raises(UserError, match=f"REKINDLE_CACHE_GB must be a number of gigabytes, such as 50, found '{text}'"):
        Cache.default()


def test_a_cache_that_cannot_be_made_is_told_and_does_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    notes: list[str] = []
    load(pictures(tmp_path / "a", 4), Cache(tmp_path / "file" / "pixels"), notes)
    assert notes == [
        (
            f"the cache {tmp_path / 'file' / 'pixels'} cannot be used (Not a directory); pictures are decoded for this run alone; "
            "set REKINDLE_HOME to a folder that may be written to keep them."
        )
    ]


def test_a_cache_that_may_only_be_read_is_read(store: Cache, decoded: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = pictures(tmp_path / "a", 6)
    load(paths[:4], store)
    decoded.clear()

    def refuse(*arguments: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(locks, "FileLock", refuse)  # Tests may run as root, whom no mode of a folder stops.
    monkeypatch.setattr(os, "utime", refuse)
    notes: list[str] = []
    load(paths, store, notes)
    assert len(decoded) == 2
    assert notes == [
        (
            f"the cache {store.root} cannot be used (Permission denied); pictures are decoded for this run alone; "
            "set REKINDLE_HOME to a folder that may be written to keep them."
        )
    ]


@pytest.mark.parametrize("when", ["add", "close"])
def test_a_full_disk_is_told_and_the_run_goes_on(when: str, store: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: shards.ShardWriter, *arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards.ShardWriter, when, full)
    notes: list[str] = []
    told: list[int] = []
    Pixels.load(pictures(tmp_path / "a", 7), EDGE, cache=store, note=notes.append, progress=told.append)
    assert notes == [
        (
            f"the cache {store.root} cannot be used (No space left on device); pictures are decoded for this run alone; "
            "set REKINDLE_HOME to a folder that may be written to keep them."
        )
    ]
    assert told[-7:] == [1, 2, 3, 4, 5, 6, 7]
    assert files(store) == files(store, ".partial") == []


def fit(data: Path, out: Path, **options: Any) -> rekindle.Run:
    return rekindle.fit(data, out=out, model="tiny", image_size=32, epochs=1, lr=0.01, batch_size=8, precision="32", **options)


def test_runs_share_what_was_decoded_and_give_the_same_bits_without_a_cache(
    decoded: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REKINDLE_HOME", str(tmp_path / "home"))
    picture_folder(tmp_path / "data", {"train": 9, "val": 3})
    plain = fit(tmp_path / "data", tmp_path / "plain", cache=False)
    assert len(decoded) == 24
    assert not (tmp_path / "home").exists()
    first = fit(tmp_path / "data", tmp_path / "first")
    other = fit(tmp_path / "data", tmp_path / "first", seed=3, method="l2_sp")
    assert len(decoded) == 48
    assert plain.folder.name == first.folder.name != other.folder.name
    assert (plain.folder / "model.safetensors").read_bytes() == (first.folder / "model.safetensors").read_bytes()


def test_the_command_lists_and_clears(store: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = str(store.root.parent)
    assert main(["data", "cache", "--root", home]) == 0
    assert capsys.readouterr().out.startswith("0.00 of at most 50 GB (REKINDLE_CACHE_GB) in ")
    load(pictures(tmp_path / "a", 3), store)
    load(pictures(tmp_path / "a", 3), store, edge=EDGE * 2)
    names = [Settings(EDGE, "bilinear").name, Settings(EDGE * 2, "bilinear").name]
    assert main(["data", "cache", "--root", home]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in names)
    assert "24 px, bilinear" in shown
    assert main(["data", "cache", "--root", home, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {one["settings"] for one in found["settings"]} == set(names)
    assert found["bytes"] == sum(path.stat().st_size for path in files(store))
    assert found["limit"] == 50_000_000_000
    assert main(["data", "cache", "--root", home, "--clear", "nothing"]) == 2
    assert "it has " + ", ".join(sorted(names)) in capsys.readouterr().err
    assert main(["data", "cache", "--root", home, "--clear", names[0]]) == 0
    assert [path.parent.name for path in files(store)] == [names[1]]
    assert main(["data", "cache", "--root", home, "--clear", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["left"] == 0
    assert files(store) == []


def test_twins_of_a_broken_picture_are_all_named(store: Cache, tmp_path: Path) -> None:
    """Into an empty cache, where nothing is hashed before it is decoded."""
    one, two = pictures(tmp_path / "a", 2)
    broken = [one.with_name(f"broken{number}.png") for number in range(3)]
    for path in broken:
        path.write_bytes(b"no picture")
    with pytest.raises(UserError) as caught:
        load([broken[0], one, broken[1], two, broken[2]], store)
    assert all(str(path) in str(caught.value) for path in broken) and str(one) not in str(caught.value)
