"""Damage to the files of runs and studies, drawn by a seed, and a loop that counts what readers make of it.

For a long run: `count(folder, readers, 20_000, seed=1)` from the tests of damaged records, or any reader of one folder.
"""

import copy
import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from rekindle.errors import UserError

Reader = Callable[[Path], Any]
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 7, 2**31, 2**63, -(2**70), 10**400, 0.5, -0.0, 1e308, -1e308, float("nan"), float("inf"), "", "x", "\0", "../..", "a" * 5000,
    "\ud800", "<b>", "{p}", [], [None], [[]], {}, {"": 0}, {"format": 3},
]  # fmt: skip
VERSIONS: list[Any] = [3, 99, 10**30, 0, -1, 1.0, 2.5, "2", "two", True, None, [], {}]
DEEP = 5000


def cut(content: bytes, stream: random.Random) -> bytes:
    """The beginning, as a power cut leaves it."""
    return content[: stream.randrange(len(content) + 1)]


def flip(content: bytes, stream: random.Random) -> bytes:
    """A few bits are others."""
    changed = bytearray(content)
    for _ in range(stream.choice((1, 1, 3, 20)) if changed else 0):
        changed[stream.randrange(len(changed))] ^= 1 << stream.randrange(8)
    return bytes(changed)


def foreign(content: bytes, stream: random.Random) -> bytes:
    """Something else altogether."""
    nested = b"[" * DEEP + b"]" * DEEP
    aliases = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
        b"%c: &%c [%s]\n" % (name, name, b", ".join([b"*%c" % (name - 1)] * 9)) for name in b"bcdefghij"
    )
    return stream.choice(
        [b"", b"\0" * 64, b"\xff\xfe\x00", b"null", b"[]", b"{}", b"3", b'"text"', nested, b'{"a": ' * DEEP + b"1" + b"}" * DEEP, aliases, b"a: &a [*a]\n",
         b"? [1, 2]\n: 3\n", b"a: !!bool x\n", b"a: 2001-99-99\n", b"!!python/object/apply:os.getcwd []\n", b"a,b\n\"", stream.randbytes(200), content + content]
    )  # fmt: skip


def splice(content: bytes, stream: random.Random) -> bytes:
    """A part stands twice, or is gone."""
    if not content:
        return content
    start, end = sorted(stream.randrange(len(content)) for _ in range(2))
    return stream.choice([content[:start] + content[end:], content[:end] + content[start:]])


def retyped(values: Any, stream: random.Random) -> Any:
    """Some value inside is gone, of another kind, or nested deeper."""
    places: list[tuple[Any, Any]] = []
    waiting = [values]
    while waiting:
        holder = waiting.pop()
        inside = list(holder.items()) if isinstance(holder, dict) else list(enumerate(holder)) if isinstance(holder, list) else []
        places += [(holder, key) for key, _ in inside]
        waiting += [value for _, value in inside]
    if not places:
        return stream.choice(ODD)
    holder, key = stream.choice(places)
    change = stream.randrange(6)
    if change == 0:
        del holder[key]
    elif change == 1:
        holder[key] = [[holder[key]]]
    elif change == 2:
        holder[key] = {"deeper": holder[key]}
    elif change == 3 and isinstance(holder, dict):
        holder[stream.choice(["extra", "", "\n", "x" * 300])] = holder[key]
    elif change == 4:
        holder[key] = copy.deepcopy(stream.choice(places)[0])
    else:
        holder[key] = copy.deepcopy(stream.choice(ODD))
    return values


def versioned(values: Any, stream: random.Random) -> Any:
    """It says to be of another version."""
    return {**values, "format": copy.deepcopy(stream.choice(VERSIONS))} if isinstance(values, dict) else values


def structured(change: Callable[[Any, random.Random], Any]) -> Callable[[Path, random.Random], bytes]:
    """The change applied to what a file of JSON, JSON lines or YAML says."""

    def damage(path: Path, stream: random.Random) -> bytes:
        text = path.read_text("utf-8")
        if path.suffix == ".json":
            return json.dumps(change(json.loads(text), stream)).encode("utf-8", "surrogatepass")
        if path.suffix == ".jsonl":
            lines = [json.loads(line) for line in text.splitlines()]
            chosen = stream.randrange(len(lines))
            lines[chosen] = change(lines[chosen], stream)
            return "".join(json.dumps(line) + "\n" for line in lines).encode()
        if path.suffix == ".yaml":
            return yaml.safe_dump(change(yaml.safe_load(text), stream), sort_keys=False).encode("utf-8", "replace")
        rows = [line.split(",") for line in text.splitlines()]
        return "\n".join(",".join(map(str, row)) for row in change(rows, stream) if isinstance(row, list)).encode("utf-8", "replace")

    return damage


def plain(change: Callable[[bytes, random.Random], bytes]) -> Callable[[Path, random.Random], bytes]:
    """The change applied to a file's bytes."""
    return lambda path, stream: change(path.read_bytes(), stream)


MUTATIONS: dict[str, Callable[[Path, random.Random], bytes]] = {
    "cut": plain(cut), "flip": plain(flip), "foreign": plain(foreign), "splice": plain(splice), "retyped": structured(retyped),
    "retyped again": structured(retyped), "versioned": structured(versioned),
}  # fmt: skip
TEXTS = (".json", ".jsonl", ".yaml", ".csv")


def mutate(folder: Path, whole: Path, stream: random.Random) -> str:
    """Damage one file of `folder`, a copy of `whole`; what was done, in words."""
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.suffix in TEXTS or path.suffix == ".safetensors")
    file = stream.choice(files)
    names = list(MUTATIONS) if file.suffix in TEXTS else ["cut", "flip", "foreign", "splice"]
    kind = stream.choice([*names, "swapped", "missing", "a folder"])
    path = folder / file
    if kind == "swapped":
        path.write_bytes((whole / stream.choice(files)).read_bytes())
    elif kind == "missing":
        path.unlink()
    elif kind == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(MUTATIONS[kind](whole / file, stream))
    return f"{kind}: {file}"


def restore(folder: Path, whole: Path) -> None:
    """Make `folder` a copy of `whole` again."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)


def count(whole: Path, place: Path, readers: Sequence[Reader], mutations: int, seed: int, longest: float = 20.0) -> Counter[str]:
    """Damage a folder again and again and let one reader look at it each time.

    Args:
        whole: What is copied.
        place: Where the damaged copy lies.
        readers: Called in turn with the copy.
        mutations: How often.
        seed: Of the damage; the same seed does the same.
        longest: Seconds of processor time that a reader may take.

    Returns:
        How often a reader worked, and how often it refused the folder in a sentence.

    Raises:
        AssertionError: If a reader raised anything but a `UserError` of one line, or took too long; it names the damage.
    """
    outcomes: Counter[str] = Counter()
    for number in range(mutations):
        stream = random.Random(f"{seed}/{number}")
        restore(place, whole)
        done = mutate(place, whole, stream)
        reader = readers[number % len(readers)]
        name = f"seed {seed}, mutation {number}, {done}, {getattr(reader, '__name__', reader)}"
        began = time.process_time()
        try:
            reader(place)
        except UserError as error:
            assert str(error).strip() and "\n" not in str(error), name
            outcomes["refused"] += 1
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
        else:
            outcomes["worked"] += 1
        assert time.process_time() - began < longest, name
    return outcomes
