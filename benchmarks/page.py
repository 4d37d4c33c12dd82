"""The page on performance, from measured figures; it is never edited by hand."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rekindle.errors import number_of

Found = dict[str, Any]

HEAD = """\
# Performance

`make bench` measured this and wrote this page; `make gpu` does so on a GPU. Ratios are of two things that took turns, with their spread in
brackets: they say what something costs beside something else. How much that is depends on what a machine multiplies with, so that
each table names its own. With one thread figures are of processor time, which other work on the machine distorts little.
"""


@dataclass(frozen=True)
class Section:
    """One thing that is measured.

    Attributes:
        title: Its heading.
        text: What the figures are; of no machine.
        caption: How they were measured on one machine, with the names of its figures in braces.
        columns: Headings of the table, the first of text, the others of numbers.
        rows: Cells from the figures of one machine.
        more: What is to be said after the tables.
    """

    title: str
    text: str
    caption: str
    columns: Callable[[Found], list[str]]
    rows: Callable[[Found], list[list[str]]]
    more: str = ""

    def shown(self, machines: dict[str, Found]) -> str:
        """The section in Markdown, a table for each machine.

        Args:
            machines: Figures by machine.
        """
        tables = [self._table(name, found) for name, found in machines.items()]
        return "\n\n".join([f"## {self.title}", self.text, *tables, *([self.more] if self.more else [])]) + "\n"

    def _table(self, machine: str, found: Found) -> str:
        columns = self.columns(found)
        counted = {name: number_of(found[name], name.removesuffix("s")) for name in ("threads", "rounds", "pairs") if name in found}
        measured = self.caption.format(**{**found, **counted})
        head = f"**{machine}**, {measured}, {found['date']}, Python {found['python']}, torch {found['torch']}:"
        lines = [columns, ["---", *(["---:"] * (len(columns) - 1))], *self.rows(found)]
        return "\n".join([head, "", *(f"| {' | '.join(line)} |" for line in lines)])


def _fixed(*names: str) -> Callable[[Found], list[str]]:
    return lambda found: list(names)


def _epochs(found: Found) -> list[list[str]]:
    columns = ("over_hand", "over_bare", "hand_over_bare", "outside", "plain_over_run")
    return [[row["model"], str(row["image_size"]), row["format"], *(_range(row[name]) for name in columns)] for row in found["rows"]]


def _starting(found: Found) -> list[list[str]]:
    return [[row["name"], f"{row['clock']:.2f}", f"{row['processor']:.2f}", _range(row)] for row in found["rows"]]


def _studies(found: Found) -> list[list[str]]:
    rows = [["each by a command of its own", f"{found['alone']:.0f}", "", "", ""]]
    for row in found["rows"]:
        words = f"a study, {number_of(row['jobs'], 'job')}"
        rows.append([words, f"{row['whole']:.0f}", _range(row["over_commands"]), _range(row["over_one"]), _range(row["going_over_one"])])
    return rows


def _compiled(found: Found) -> list[list[str]]:
    return [[row["model"], str(row["image_size"]), _range(row), f"{row['seconds']:.0f}"] for row in found["rows"]]


def _frozen(found: Found) -> list[list[str]]:
    return [[row["model"], row["until"], _range(row)] for row in found["rows"]]


def _scale(found: Found) -> list[list[str]]:
    rows = [[words, *(f"{one['spent'][name]:.2f}" for one in found["rows"])] for name, words in found["phases"].items()]
    return [*rows, ["memory, bytes", *(str(round(one["bytes"])) for one in found["rows"])]]


def _methods(found: Found) -> list[list[str]]:
    return [[row["recipe"], _range(row), _goal(row), f"{abs(row['kept']):.2f}", f"{max(row['peak'], 0.0):.2f}"] for row in found["rows"]]


def _goal(row: Found) -> str:
    if row["goal"] is None:
        return ""
    return f"{row['goal']:.2f}{', missed' if row['median'] > row['goal'] else ''}"


def _range(found: Found) -> str:
    return f"{found['median']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


SECTIONS = {
    "epochs": Section(
        "A run's epoch",
        """\
Steps of `rekindle.fit` with plain L2 and random weights, over those of a loop that is written by hand (decoded pictures in memory,
random crops, torch's SGD), and over the bare step on one batch: forward, backward, optimiser; medians over epochs in turn, with the range in
brackets. Then the share of a run's epoch outside the bare step, and how many times as long the steps of a plain loop take: torchvision's folder
and transforms, which decode each picture each time, float32, channels first, as in the papers' code.""",
        "{threads}, batch {batch_size}, {rounds}",
        _fixed(
            "network", "pixels", "format", "run over hand-written", "run over bare step", "hand-written over bare step", "outside the step",
            "plain loop over run",
        ),
        _epochs,
    ),
    "starting": Section(
        "Until it begins",
        """\
Seconds of processes of their own, of the clock and of the processor, and the processor's as a multiple of what importing torch and
torchvision takes; medians of rounds in turn, with the range in brackets. The run is `rekindle fit` of one epoch on cached pictures at 128
pixels, with the installed network and with SqueezeNet without weights; for its first step it is stopped there.""",
        "{rounds}, {pictures} pictures",
        _fixed("what", "clock, s", "processor, s", "over importing torch and torchvision"),
        _starting,
    ),
    "studies": Section(
        "Studies of small runs",
        """\
Runs an hour by the clock, each with one thread, start and forecast of a study included; medians of rounds in turn, with the range in brackets.
A study keeps its processes, so that libraries are loaded once and what is seen of pictures and weights is shared; commands draw their
pictures, which a study does when they are asked for. The last column is from the first run's end to the last's, without the start, which a
longer study has once, too.""",
        "{rounds}, {cells} runs of {model} at {size} pixels, {pictures} training pictures, {epochs} epochs, of which training takes {training:.1f} s",
        _fixed("", "runs an hour", "over commands", "over one job", "over one job, while it goes"),
        _studies,
    ),
    "compiled": Section(
        "torch.compile",
        """\
A step on one batch of a network that `torch.compile` has compiled, over one of the network as it is: medians of pairs, with the range in
brackets; and how long the first compiled steps take. A run does not compile on a processor: little or nothing is gained there, and a short
run would spend more time on it than on training.""",
        "{threads}, batch {batch_size}, {pairs}",
        _fixed("network", "pixels", "compiled over ordinary", "compiling, s"),
        _compiled,
    ),
    "frozen": Section(
        "Frozen layers",
        """\
An epoch, its validation included, of a run with `--freeze STAGE --views`, in which what the frozen layers give is stored, over one that
computes it at each step; medians of epochs after those that store, with the range in brackets. What is left is the rest of the network, the
optimiser and, from epoch to epoch, the checkpoint.""",
        "{threads}, {size} pixels, {views} views, {rounds}",
        _fixed("network", "frozen up to", "stored over computed"),
        _frozen,
    ),
    "scale": Section(
        "Many pictures",
        """\
Microseconds of the processor that a picture takes, of a Parquet table of made-up pictures: with a growing number of pictures they stay the
same where the work is linear. Memory is the most that the process held beyond its libraries, decoded pixels in the system's page cache
included, which it may drop.""",
        "{classes} classes, {edge} by {edge} pixels",
        lambda found: ["what", *(f"{one['count']:,} pictures" for one in found["rows"])],
        _scale,
    ),
    "methods": Section(
        "What a method adds to a training step",
        """\
A step over one with plain L2: the median of pairs, with the quartiles in brackets. Memory is counted in copies of the weights in float32,
beyond what L2 takes: what is held from step to step beside the frozen source, and the most that is held while the gradients of penalties
are added.""",
        "{threads}, {setting[model]} at {setting[image_size]} pixels, batch {setting[batch_size]}",
        _fixed("method", "step over an L2 step", "goal", "held", "at most"),
        _methods,
        """\
What such a step cannot do without: LwF, soft targets, attention transfer, feature maps and FSP run the source forward, without gradients and in
the same format, which is a fifth to a quarter of an L2 step; FSP also multiplies the maps of two layers for each picture, in float32. Penalties
on weights move numbers between memory and processor: plain L2 five a weight, L2-SP eight, Fisher and the mixture eleven, of four bytes each.
StochNorm normalises by two statistics and draws one of the two for each channel. The table of the machine with AMX is from before FSP compared deep
layers through their positions.""",
    ),
}  # fmt: skip


def text(machines: dict[str, dict[str, Found]]) -> str:
    """The whole page.

    Args:
        machines: Figures by machine, then by the name of their part.
    """
    measured = {part: {name: parts[part] for name, parts in machines.items() if part in parts} for part in SECTIONS}
    return "\n".join([HEAD, *(section.shown(measured[part]) for part, section in SECTIONS.items() if measured[part])])
