"""Files that outlive the command that wrote them: each states the version of its format, and each is read in one way.

The version stands under `KEY`: in JSON and YAML among the other keys, in JSON lines on each line, and as text among the metadata of a
safetensors file under `METADATA_KEY`, since "format" names the framework there. Where it is absent, the file is of rekindle 0.1.0,
which stated none; all versions up to a format's own are read. Tables, pages and pictures are for people and state none. It loads no torch.
"""

import json
import stat
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from rekindle.errors import Later, Unreadable, UserError
from rekindle.files import write_atomic, write_json

KEY, METADATA_KEY = "format", "rekindle_format"
OLDEST = 1
LARGEST = 1 << 30  # Bytes of a file; what is larger was never written here, and would fill the memory.
LARGEST_YAML = 1 << 20  # Settings are typed by people, and reading YAML is slow.
DEEPEST = 60  # Lists and mappings inside each other; Python's own functions give up at some hundreds.
MOST = 10_000_000  # Values of a YAML file, those that stand behind its aliases counted as often as they are named.
SHOWN = 100  # Letters of what was found.
# What code that counts on whole files may raise on others. `UserError` is a ValueError, too.
SURPRISES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
UPGRADE = "upgrade rekindle (pip install --upgrade rekindle)"

Shape = TypeVar("Shape")


@dataclass(frozen=True)
class FileFormat(Generic[Shape]):
    """A kind of file, and all there is to know to write and read it.

    Args:
        version: The one that is written; those from 1 to it are read.
        shape: What a file holds, as a TypedDict whose annotations bound the values; keys that it does not name are kept unread.
        again: What to do where a file is damaged; {path} and {folder} are filled in.
    """

    version: int
    shape: type[Shape]
    again: str = "remove it and start again"

    def stamped(self, values: Any) -> dict[str, Any]:
        """The values with the version before them.

        Returns:
            A new mapping, "format" first.
        """
        return {KEY: self.version, **values}

    def metadata(self) -> dict[str, str]:
        """The version for a safetensors file.

        Returns:
            One text by name.
        """
        return {METADATA_KEY: str(self.version)}

    def write(self, path: Path, values: Any) -> None:
        """Write JSON, whole or not at all."""
        write_json(path, self.stamped(values))

    def write_yaml(self, path: Path, values: Any) -> None:
        """Write YAML, whole or not at all."""
        import yaml  # Only here: most commands read none.

        write_atomic(path, yaml.safe_dump(self.stamped(values), sort_keys=False, allow_unicode=True))

    def line(self, values: Any) -> str:
        """One of JSON lines.

        Returns:
            A line of JSON, its end included.
        """
        return json.dumps(self.stamped(values)) + "\n"

    def read(self, path: Path) -> Shape:
        """Read JSON.

        Returns:
            The checked values, without the version.

        Raises:
            Unreadable: If the file is missing, damaged, foreign, or (`Later`) of a later version.
        """
        return self._one(path, json.loads, LARGEST)

    def kept(self, path: Path, make: Callable[[], Shape]) -> Shape:
        """What a file holds, or else what `make` gives, which is kept there for the next time where anything can be written.

        Returns:
            The checked values.
        """
        with suppress(Unreadable):
            return self.read(path)
        made = make()
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            self.write(path, made)
        return made

    def read_yaml(self, path: Path) -> Shape:
        """Read YAML; raises as `read` does.

        Returns:
            The checked values, without the version.
        """
        import yaml

        return self._one(path, yaml.safe_load, LARGEST_YAML)

    def read_lines(self, path: Path) -> list[Shape]:
        """Read JSON lines; raises as `read` does.

        Returns:
            The checked values of each line, in order.
        """
        with self.surprises(path):
            return [self.checked(path, json.loads(line)) for line in _text(path, LARGEST).splitlines()]

    def _one(self, path: Path, parse: Callable[[str], Any], largest: int) -> Shape:
        with self.surprises(path):
            text = _text(path, largest)
            return self.checked(path, parse(text), bounded=parse is json.loads and _is_flat(text))

    def checked(self, path: Path, values: Any, bounded: bool = False) -> Shape:
        """The values without their version, if that and they are of this format.

        Args:
            path: For messages.
            values: What a parser found.
            bounded: Whether they are known to be neither many nor nested deeply, which takes long to find out.

        Returns:
            The checked values.
        """
        with self.surprises(path):
            if not isinstance(values, dict):
                raise TypeError("it holds no keys")
            self.check_version(path, values.get(KEY, OLDEST))
            if not bounded:
                _bounded(values)
            plain = {key: value for key, value in values.items() if key != KEY}
            _validator(cast(Hashable, self.shape))(plain)
            return cast(Shape, plain)

    def check_version(self, path: Path, found: Any) -> None:
        """Refuse a version that is none, or a later one."""
        if type(found) is not int or found < OLDEST:
            raise self.damaged(path, f"its format {_shown(repr(found))} is none; this rekindle reads {self._readable()}")
        if found > self.version:
            raise Later(f"{path} is of format {_shown(str(found))}, from a later rekindle; this one reads {self._readable()}: {UPGRADE}.")

    def check_metadata(self, path: Path, metadata: Mapping[str, Any]) -> None:
        """Refuse a safetensors file whose metadata state a version that is none, or a later one."""
        found = metadata.get(METADATA_KEY, str(OLDEST))
        plain = isinstance(found, str) and found.isascii() and found.isdigit() and len(found) < SHOWN
        self.check_version(path, int(found) if plain else found)

    def damaged(self, path: Path, why: str) -> Unreadable:
        """The sentence for a file that is not what was written.

        Returns:
            An error to raise.
        """
        return Unreadable(f"{path} is damaged ({_shown(why)}); {self.again.format(path=path, folder=path.parent)}.")

    @contextmanager
    def surprises(self, path: Path) -> Iterator[None]:
        """Turn whatever reading a damaged file brings about into a sentence that names it.

        Yields:
            Nothing.
        """
        try:
            yield
        except Unreadable:
            raise
        except UserError as error:  # A sentence of its own, which knows no file.
            raise self.damaged(path, str(error)) from None
        except RecursionError:
            raise self.damaged(path, "it is nested too deeply") from None
        except FileNotFoundError:
            raise Unreadable(f"there is no {path}; {self.again.format(path=path, folder=path.parent)}.") from None
        except OSError as error:
            raise Unreadable(f"{path} cannot be read ({error.strerror or error}); see to its rights and its disk.") from None
        except KeyError as error:
            raise self.damaged(path, f"it lacks {error}") from None
        except Exception as error:  # noqa: BLE001  What a parser raises on damaged text is not bounded: PyYAML alone has nine kinds.
            raise self.damaged(path, " ".join(str(error).split()) or type(error).__name__) from None

    def _readable(self) -> str:
        return f"{OLDEST} to {self.version}" if self.version > OLDEST else str(OLDEST)


def _text(path: Path, largest: int) -> str:
    """A file's text, after a look at what it is: a pipe would never end."""
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise TypeError("it is no file")
    if facts.st_size > largest:
        raise ValueError(f"it has {facts.st_size} bytes")
    return path.read_text("utf-8")


def _is_flat(text: str) -> bool:
    """Whether a text of JSON, which knows no aliases, has too few brackets to nest deeply."""
    return text.count("[") + text.count("{") < DEEPEST


def _bounded(values: Any) -> None:
    """Refuse what is nested too deeply, or grows too large where aliases of YAML are followed."""
    if _extent(values, 0, {})[0] > MOST:
        raise ValueError("it repeats itself without end")


def _extent(value: Any, depth: int, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """How many values stand in one, each alias counted, and how deep they go; `known` holds those that were looked at."""
    if not isinstance(value, dict | list | tuple | set):
        return 1, 0
    count, height = known.get(id(value), (0, 0))
    if not count:
        inside = [*value, *value.values()] if isinstance(value, dict) else value
        count = 1
        for more, levels in (_extent(item, depth + 1, known) for item in inside if depth < DEEPEST):
            count, height = count + more, max(height, levels + 1)
        known[id(value)] = count, height
    if depth + height >= DEEPEST:
        raise ValueError("it is nested too deeply")
    return count, height


@cache
def _validator(shape: Hashable) -> Callable[[Any], None]:
    """A function that refuses what has not a shape, and names the place."""
    from pydantic import TypeAdapter, ValidationError  # Only here: a command that reads no file starts without it.

    adapter: TypeAdapter[Any] = TypeAdapter(cast(Any, shape))

    def validate(values: Any) -> None:
        try:
            adapter.validate_python(values, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise ValueError(f"{_shown(place)}: {first['msg'][:1].lower()}{first['msg'][1:]}") from None

    return validate


def _shown(text: str) -> str:
    """A text on one line, without control characters, cut where it is long."""
    plain = " ".join("".join(letter if letter.isprintable() else " " for letter in text[: 2 * SHOWN]).split())
    return plain if len(plain) <= SHOWN else f"{plain[:SHOWN]} …"
