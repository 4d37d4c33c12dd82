"""Facts of a data set before anybody trains on it: every file that is broken, and everything that looks odd."""

import hashlib
import io
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from rekindle.data.cache.decode import Undecodable, decode, inspect, read
from rekindle.data.dataset import imbalance, name_in
from rekindle.data.formats.columns import ColumnNames
from rekindle.data.formats.folder_walk import Findings
from rekindle.data.formats.images import Picture
from rekindle.data.formats.names import printable
from rekindle.data.formats.open import survey
from rekindle.data.grouping import straddling
from rekindle.data.splits import FoundData, SplitRules, split_key
from rekindle.errors import agree, number_of, some

EDGE = 112
SAMPLES = 6
UNEVEN, FEW, SMALL = 3.0, 10, 32
DARK = 1 / 8


@dataclass(frozen=True)
class ImageInfo:
    """What one picture is like.

    Attributes:
        split: Where it stands.
        label: Its class.
        name: See `Dataset.relative`.
        reason: Why it cannot be read, or "".
        width: Pixels, once upright.
        height: Pixels, once upright.
        mode: Pillow's, such as RGB, L, CMYK, P or I;16.
        format: Pillow's, such as JPEG.
        rotated: Its EXIF data turn it.
        frames: More than one in an animation.
        largest: Of 16-bit greys, the largest value over that of white; else 1.
        digest: SHA-256 of its bytes.
        pixels: Hash of the picture as RGB with a shorter edge of 112 pixels.
    """

    split: str
    label: str
    name: str
    reason: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    format: str = ""
    rotated: bool = False
    frames: int = 1
    largest: float = 1.0
    digest: str = ""
    pixels: str = ""


@dataclass(frozen=True)
class Check:
    """The facts; `to_dict` is what --json prints.

    Attributes:
        data: What was checked.
        classes: In the order of their labels.
        counts: {split: {class: pictures}} as found, before a validation or test split is taken out.
        taken: Splits that a run takes out of train, since there are none.
        problems: Why a run would be refused, apart from unreadable pictures.
        unreadable: {name: reason} of every picture that cannot be decoded.
        notes: What was left out.
        suspicious: What is allowed but odd.
        sizes: {"width", "height", "shorter edge": (smallest, median, largest)} in pixels.
        modes: {mode: pictures}.
        formats: {format: pictures}.
        rotated: Pictures that their EXIF data turn.
        animated: Pictures with several frames, of which the first is used.
        across: Groups of names, byte for byte equal, that stand in several splits.
        within: The same inside one split.
        contradictions: Groups of equal pictures that have different labels.
        alike: Groups with other bytes but the same pixels (at a shorter edge of 112).
        samples: {class: names of a few training pictures}.
    """

    data: str
    classes: list[str]
    counts: dict[str, dict[str, int]]
    taken: list[str]
    problems: list[str]
    unreadable: dict[str, str]
    notes: list[str]
    suspicious: list[str]
    sizes: dict[str, tuple[int, float, int]]
    modes: dict[str, int]
    formats: dict[str, int]
    rotated: int
    animated: int
    across: list[list[str]]
    within: list[list[str]]
    contradictions: list[list[str]]
    alike: list[list[str]]
    samples: dict[str, list[str]]
    pictures: dict[str, Picture] = field(repr=False)

    @property
    def usable(self) -> bool:
        """Whether a run would start."""
        return not self.problems and not self.unreadable

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures themselves.

        Returns:
            Plain values, as `rekindle data check --json` prints them.
        """
        facts = {name: value for name, value in vars(self).items() if name != "pictures"}
        return {"usable": self.usable, **facts}


def check(
    data: Path | str, asked: ColumnNames | None = None, progress: Callable[[int, int], None] | None = None, group_pattern: str | None = None
) -> Check:
    """Open every picture of a data set.

    Args:
        data: See `rekindle.data.open_data`.
        asked: Names of a table's columns.
        progress: Told of the number of pictures done and of all, in the caller's thread.
        group_pattern: See `rekindle.data.open_data`.

    Returns:
        What there is and what is wrong, with every file that cannot be read.

    Raises:
        UserError: If there is nothing to check: no such folder, or a table whose columns are not clear.
    """
    found = _printable(survey(data, asked or ColumnNames(), group_pattern))
    places = [(split, label, picture) for split, part in found.found.items() for label, pictures in part.items() for picture in pictures]
    looks = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for look in pool.map(lambda place: _look(found.root, *place), places):
                looks.append(look)
                if progress is not None:
                    progress(len(looks), len(places))
        finally:
            pool.shutdown(cancel_futures=True)
    return _summarize(printable(str(data)), found, looks, {printable(name_in(found.root, picture)): picture for _, _, picture in places})


def _printable(found: FoundData) -> FoundData:
    """The same with class names that any file takes; a folder whose name is not UTF-8 is among the problems."""
    parts = {split: {printable(name): pictures for name, pictures in part.items()} for split, part in found.found.items()}
    return replace(found, found=parts, classes=[printable(name) for name in found.classes])


def thumbnail(picture: Picture, edge: int = EDGE) -> bytes:
    """A small JPEG of a picture, its longer side cut to twice the shorter.

    Returns:
        The bytes of a JPEG file, its shorter side `edge` pixels.
    """
    image = decode(picture, edge)
    top, left = (max(0, (length - 2 * edge) // 2) for length in image.shape[:2])
    buffer = io.BytesIO()
    Image.fromarray(image[top : top + 2 * edge, left : left + 2 * edge]).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _look(root: Path, split: str, label: str, picture: Picture) -> ImageInfo:
    name = printable(name_in(root, picture))
    try:
        data = read(picture)
        pixels, facts = decode(data, EDGE), inspect(data)
    except Undecodable as error:
        return ImageInfo(split, label, name, reason=printable(str(error)))
    return ImageInfo(split, label, name, "", **vars(facts), digest=hashlib.sha256(data).hexdigest(), pixels=_hash(pixels))


def _hash(pixels: np.ndarray) -> str:
    return hashlib.blake2b(pixels.tobytes(), digest_size=16, person=repr(pixels.shape[:2]).encode()[:16]).hexdigest()


def _summarize(data: str, found: FoundData, looks: list[ImageInfo], pictures: dict[str, Picture]) -> Check:
    good = [look for look in looks if not look.reason]
    counts = {split: {name: len(part.get(name, [])) for name in found.classes} for split, part in found.found.items()}
    equal = _groups(good, lambda look: look.digest)
    widths = {
        "width": [look.width for look in good],
        "height": [look.height for look in good],
        "shorter edge": [min(look.width, look.height) for look in good],
    }
    across = [group for group in equal if len({look.split for look in group}) > 1]
    unlike = [group for group in equal if len({look.label for look in group}) > 1]
    alike = [group for group in _groups(good, lambda look: look.pixels) if len({look.digest for look in group}) > 1]
    taken = [name for name, missing in (("val", "val" not in counts), ("test", found.bare)) if missing]
    problems = _problems(found)
    told = {problem.partition(": ")[0] for problem in problems}
    return Check(
        data, found.classes, counts, taken, problems,
        {printable(look.name): look.reason for look in looks if look.reason and printable(str(pictures[look.name])) not in told},
        list(found.findings.notes), [*_torn(found), *_suspicious(found, counts, good, across, unlike, alike)],
        {name: (min(values), median(values), max(values)) for name, values in widths.items() if values},
        dict(Counter(look.mode for look in good).most_common()), dict(Counter(look.format for look in good).most_common()),
        sum(look.rotated for look in good), sum(look.frames > 1 for look in good),
        _names(across), _names([group for group in equal if len({look.split for look in group}) == 1]), _names(unlike), _names(alike),
        {name: _some_of(good, name) for name in found.classes}, pictures,
    )  # fmt: skip


def _problems(found: FoundData) -> list[str]:
    """What a run with the default options would refuse."""
    problems = list(found.findings.problems)
    if not problems:
        findings = Findings(found.findings.root)
        SplitRules(found.root, 0, 0.2, 0.2).split(found.found, found.bare, findings, found.groups)
        problems = findings.problems
    return [printable(problem) for problem in problems]


def _suspicious(
    found: FoundData,
    counts: dict[str, dict[str, int]],
    good: list[ImageInfo],
    across: list[list[ImageInfo]],
    unlike: list[list[ImageInfo]],
    alike: list[list[ImageInfo]],
) -> list[str]:
    said = []
    totals = {split: sum(part.values()) for split, part in counts.items()}
    train = counts["train"]
    for split in ("val", "test"):
        if totals.get(split, 0) > totals["train"]:
            said.append(f"{split} is larger than train: {totals[split]} against {number_of(totals['train'], 'picture')}.")
        missing = [name for name, count in counts.get(split, {}).items() if not count]
        if missing:
            said.append(f"{split} lacks {len(missing)} of {number_of(len(found.classes), 'class')}: {some(missing)}.")
    if train and (spread := imbalance(train))["ratio"] >= UNEVEN:
        said.append(
            f"classes are unbalanced: {number_of(spread['fewest'], 'picture')} of {spread['smallest']} to {spread['most']} of {spread['largest']} in train."
        )
    few = [f"{name} ({count})" for name, count in train.items() if 0 < count < FEW]
    if few:
        said.append(f"{number_of(len(few), 'class', 'has')} fewer than {FEW} training pictures: {some(few)}.")
    said += _near_names(found.classes)
    if unlike:
        said.append(f"{number_of(len(unlike), 'picture', 'has')} several labels, such as {_pair(unlike)}.")
    if across:
        said.append(
            f"{number_of(len(across), 'picture', 'stands')} in several splits, such as {_pair(across)}: accuracy on {agree(len(across), 'it')} says nothing."
        )
    crossing = [group for group in alike if len({look.split for look in group}) > 1]
    if crossing:
        said.append(f"{len(crossing)} more stand in several splits, saved in other bytes, such as {_pair(crossing)}.")
    small = [look.name for look in good if min(look.width, look.height) < SMALL]
    if small:
        said.append(f"{number_of(len(small), 'picture', 'has')} a side of less than {SMALL} pixels: {some(small, 3)}.")
    dark = [look for look in good if look.largest < DARK]
    if dark:
        bright = max(look.largest for look in dark)
        said.append(
            f"{number_of(len(dark), 'picture')} of 16 bits {agree(len(dark), 'is')} nearly black, {agree(len(dark), 'its')} values reach {100 * bright:.1f} % of white at most: "
            f"{some([look.name for look in dark], 3)}; if they hold 10 or 12 bits, save them stretched to 16, or as TIFF with MaxSampleValue."
        )
    return [printable(sentence) for sentence in said]


def _torn(found: FoundData) -> list[str]:
    """What to know of groups that the data's own splits tear."""
    return [printable(sentence) for sentence in straddling(found.found, found.groups)] if found.groups else []


def _near_names(classes: Sequence[str]) -> list[str]:
    """Classes whose names differ in case, spaces, hyphens and underscores alone."""
    spellings: dict[str, list[str]] = {}
    for name in classes:
        spellings.setdefault("".join(c for c in name.casefold() if c not in " -_"), []).append(name)
    return [f"classes {' and '.join(names)} look like one." for names in spellings.values() if len(names) > 1]


def _groups(looks: list[ImageInfo], key: Callable[[ImageInfo], str]) -> list[list[ImageInfo]]:
    """Pictures with the same key, where there are several."""
    groups: dict[str, list[ImageInfo]] = {}
    for look in looks:
        groups.setdefault(key(look), []).append(look)
    return [group for group in groups.values() if len(group) > 1]


def _names(groups: list[list[ImageInfo]]) -> list[list[str]]:
    return [[printable(look.name) for look in group] for group in groups]


def _pair(groups: list[list[ImageInfo]]) -> str:
    return f"{groups[0][0].name} and {groups[0][1].name}"


def _some_of(good: list[ImageInfo], label: str) -> list[str]:
    """A few training pictures of a class: those that come first by hash, so the same ones every time."""
    names = [look.name for look in good if look.label == label and look.split == "train"]
    return sorted(names, key=lambda name: split_key(0, "sample", name))[:SAMPLES]
