"""Pictures that belong together, such as those of one patient or camera, and parts of a data set that no group is torn between."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rekindle.data.formats.images import Picture
from rekindle.errors import agree, number_of

Pictures = dict[str, list[Picture]]  # By class.
PASSES = 20  # Over all groups; each ends nearer to the shares, and some three are enough as a rule.
ALL = "\0"  # Stands beside the classes for the pictures of all of them.


@dataclass(frozen=True)
class Part:
    """What a part of a data set is to hold.

    Attributes:
        share: Of each class, above 0.
        needs: How grave it is, beside the other parts, if it has no group of a class; then, if it has but one; and so on.
    """

    share: float
    needs: tuple[int, ...] = (1,)


def allocate(groups: Sequence[Mapping[str, int]], parts: Sequence[Part]) -> list[int]:
    """Put each group whole into a part, so that the parts hold their shares of each class, and of all pictures, as nearly as moving single
    groups brings about.

    The parts' needs count more than any share: with groups of one class each, a class of N groups is in the N parts that need it most.

    Args:
        groups: {class: pictures} of each group, all above 0; their order decides among equals.
        parts: At least one.

    Returns:
        The number of each group's part.
    """
    rows = [{**group, ALL: sum(group.values())} for group in groups]
    totals: Counter[str] = Counter()
    for row in rows:
        totals.update(row)
    held: list[Counter[str]] = [Counter() for _ in parts]
    members: list[Counter[str]] = [Counter() for _ in parts]

    def change(row: Mapping[str, int], number: int) -> tuple[int, float]:
        """What it costs to put a group into a part: needs, then distance from the shares."""
        part, need, away = parts[number], 0, 0.0
        for kind, count in row.items():
            before, there = held[number][kind], members[number][kind]
            need -= part.needs[there] if there < len(part.needs) else 0
            wanted = part.share * totals[kind]
            away += ((before + count - wanted) ** 2 - (before - wanted) ** 2) / (wanted * totals[kind])
        return need, away

    def put(row: Mapping[str, int], number: int, times: int = 1) -> None:
        for kind, count in row.items():
            held[number][kind] += times * count
            members[number][kind] += times

    def best(row: Mapping[str, int]) -> int:
        return min(range(len(parts)), key=lambda number: change(row, number))

    places = []
    for row in rows:
        places.append(best(row))
        put(row, places[-1])
    for _ in range(PASSES):
        before = list(places)
        for number, row in enumerate(rows):
            put(row, places[number], -1)
            place = best(row)
            if change(row, place) < change(row, places[number]):
                places[number] = place
            put(row, places[number])
        if places == before:
            break
    return places


def in_parts(found: Pictures, groups: Mapping[Picture, str], key: Callable[[str], bytes], parts: Sequence[Part]) -> list[Pictures]:
    """Pictures in parts, no group in two of them.

    Args:
        found: Pictures by class.
        groups: The group of each picture.
        key: Sorting key of a group, which decides among equals.
        parts: See `allocate`.

    Returns:
        Pictures of each part, whose classes come as near to their shares as moving single groups brings about.
    """
    counts: dict[str, Counter[str]] = {}
    for name, pictures in found.items():
        for picture in pictures:
            counts.setdefault(groups[picture], Counter())[name] += 1
    names = sorted(counts, key=key)
    place = dict(zip(names, allocate([counts[name] for name in names], parts), strict=True))
    return [
        {name: [picture for picture in pictures if place[groups[picture]] == number] for name, pictures in found.items()}
        for number in range(len(parts))
    ]


def dealt(found: Pictures, key: Callable[[Picture], bytes], folds: int) -> list[Pictures]:
    """Pictures dealt to folds like cards, class after class, so that sizes and classes differ by one picture at most.

    Returns:
        Pictures of each fold.
    """
    place, turn = {}, 0
    for pictures in found.values():
        for picture in sorted(pictures, key=key):
            place[picture] = turn % folds
            turn += 1
    return [
        {name: [picture for picture in pictures if place[picture] == number] for name, pictures in found.items()} for number in range(folds)
    ]


def groups_by_name(names: Mapping[Picture, str], pattern: str) -> tuple[dict[Picture, str], list[str]]:
    """The groups that a pattern finds in pictures' names, and the names in which it finds none.

    Args:
        names: Of each picture.
        pattern: A regular expression. A group is what stands in its brackets, or, without any, all that it matches.

    Returns:
        ({picture: group}, names without a group).
    """
    found, without = {}, []
    for picture, name in names.items():
        match = re.search(pattern, name)
        text = match[min(1, match.re.groups)] if match else None
        if text:
            found[picture] = text
        else:
            without.append(name)
    return found, without


def straddling(splits: Mapping[str, Pictures], groups: Mapping[Picture, str]) -> list[str]:
    """A sentence on groups that stand in several splits, if any do.

    Returns:
        One sentence, or none.
    """
    where: dict[str, list[str]] = {}
    for split, part in splits.items():
        for name in dict.fromkeys(groups[picture] for pictures in part.values() for picture in pictures):
            where.setdefault(name, []).append(split)
    torn = {name: places for name, places in where.items() if len(places) > 1}
    if not torn:
        return []
    name, places = next(iter(torn.items()))
    measured = [picture for split, part in splits.items() if split != "train" for pictures in part.values() for picture in pictures]
    many = sum(groups[picture] in torn for picture in measured)
    text = (
        f"{len(torn)} of {number_of(len(where), 'group')} {agree(len(torn), 'stands')} in several splits (such as {name}, in {' and '.join(places)}), with {many} of the "
        f"{number_of(len(measured), 'picture')} that a run is measured on: accuracy there says too much; let each group stand in one split."
    )
    return [text]
