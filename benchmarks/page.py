"""The page on performance, from measured figures; it is never edited by hand."""

import os
import platform
from collections.abc import Callable
from importlib import metadata
from typing import Any

HEAD = """\
# Performance

`make bench` measured this and wrote this page. Ratios are of two things that took turns, with their spread in brackets: they say what
something costs beside something else, whatever the machine.

Machine: {cores} cores, {system}; Python {python}, torch {torch}.
"""
EPOCHS = """\
## A run's epoch

Steps of `rekindle.fit` with plain L2, batch {batch_size}, with {threads} thread(s) and random weights, over those of a loop that is written by
hand (decoded pictures in memory, random crops, torch's SGD), and over the bare step on one batch: forward, backward, optimiser. Medians of
{rounds} epochs in turn, with the range in brackets, on {date}. Then the share of a run's epoch outside the bare step, and how many times as long the
steps of a plain loop take: torchvision's folder and transforms, which decode each picture each time, float32, channels first, as in the papers' code.

| network | pixels | run over hand-written | run over bare step | hand-written over bare step | outside the step | plain loop over run |
|---|---:|---:|---:|---:|---:|---:|
{rows}
"""
STARTING = """\
## Until it begins

Seconds of processes of their own, of the clock and of the processor, and the processor's as a multiple of what importing torch and
torchvision takes; medians of {rounds} rounds in turn, with the range in brackets, on {date}. The run is of one epoch on {pictures} cached
pictures at 128 pixels with the installed network; it spends {share:.0%} of its processor time before its first step has ended.

| what | clock, s | processor, s | over importing torch and torchvision |
|---|---:|---:|---:|
{rows}
"""
COMPILED = """\
## torch.compile

A step on one batch of {batch_size} of a network that `torch.compile` has compiled, over one of the network as it is, with {threads} thread(s): medians of {pairs}
pairs of processor time, with the range in brackets, on {date}; and how
long the first compiled steps take. A run does not compile on a processor: little or nothing is gained there, and a short
run would spend more time on it than on training.

| network | pixels | compiled over ordinary | compiling, s |
|---|---:|---:|---:|
{rows}
"""
FROZEN = """\
## Frozen layers

An epoch, its validation included, of a run with `--freeze STAGE --views {views}` at {size} pixels, in which what the frozen layers give is stored,
over one that computes it at each step (processor time; medians of {rounds} epochs after the first {views}, with the range in brackets, on {date}).
What is left is the rest of the network, the optimiser and, from epoch to epoch, the checkpoint.

| network | frozen up to | stored over computed |
|---|---|---:|
{rows}
"""
SCALE = """\
## Many pictures

Microseconds of the processor that a picture takes, of a Parquet table of {classes} classes of made-up pictures of {edge} by {edge} pixels, on
{date}: with a growing number of pictures they stay the same where the work is linear. Memory is the most that the process held beyond its
libraries, decoded pixels in the system's page cache included, which it may drop.

| what |{columns}
|---|{dashes}
{rows}
"""
STUDIES = """\
## Studies of small runs

Runs an hour by the clock, of {cells} runs of {model} at {size} pixels ({pictures} training pictures, {epochs} epochs, of which training takes
{training:.1f} s), each with one thread; medians of {rounds} rounds in turn, with the range in brackets, on {date}. A study keeps its processes, so
that libraries are loaded once and what is seen of pictures and weights is shared.

| | runs an hour | ratio |
|---|---:|---:|
| each by a command of its own, which draws its pictures | {alone:.0f} | |
| a study, one job, start and forecast included | {one:.0f} | {warm} over commands |
| the same, two jobs | {two:.0f} | {jobs} over one job |
| one job, from the first run's end to the last's | {one_going:.0f} | |
| two jobs, from the first run's end to the last's | {two_going:.0f} | {jobs_going} over one job |
"""
METHODS = """\
## What a method adds to a training step

A step of {model} at {image_size} pixels, batch {batch_size}, with {threads} thread(s), over one with plain L2, on {date}: the median of pairs,
with the quartiles in brackets. Memory is counted in copies of the weights in float32, beyond what L2 takes: what is held from step to step
beside the frozen source, and the most that is held while the gradients of penalties are added.

| method | step over an L2 step | goal | held | at most |
|---|---:|---:|---:|---:|
{rows}

What such a step cannot do without: LwF, soft targets, attention transfer, feature maps and FSP run the source forward, without gradients and in
the same format, which is a fifth to a quarter of an L2 step; FSP also multiplies the maps of two layers for each picture, in float32, and goes
over the (C, D) matrices that come of it. Penalties on weights move numbers between memory and processor: plain L2 five a weight, L2-SP eight,
Fisher and the mixture eleven, of four bytes each. StochNorm normalises by two statistics and draws one of the two for each channel.
"""


def methods_section(found: dict[str, Any]) -> str:
    """The table of methods."""
    return METHODS.format(**found["setting"], **{**found, "rows": "\n".join(_row(row) for row in found["rows"])})


def epochs_section(found: dict[str, Any]) -> str:
    """The table of networks."""
    columns = ("over_hand", "over_bare", "hand_over_bare", "outside", "plain_over_run")
    rows = [f"| {row['model']} | {row['image_size']} | {' | '.join(_range(row[name]) for name in columns)} |" for row in found["rows"]]
    return EPOCHS.format(**{**found, "rows": "\n".join(rows)})


def starting_section(found: dict[str, Any]) -> str:
    """The table of commands."""
    rows = [f"| {row['name']} | {row['clock']:.2f} | {row['processor']:.2f} | {_range(row)} |" for row in found["rows"]]
    return STARTING.format(**{**found, "rows": "\n".join(rows)})


def compiled_section(found: dict[str, Any]) -> str:
    """The table of compiled networks."""
    rows = [f"| {row['model']} | {row['image_size']} | {_range(row)} | {row['seconds']:.0f} |" for row in found["rows"]]
    return COMPILED.format(**{**found, "rows": "\n".join(rows)})


def frozen_section(found: dict[str, Any]) -> str:
    """The table of frozen stages."""
    rows = [f"| {row['model']} | {row['until']} | {_range(row)} |" for row in found["rows"]]
    return FROZEN.format(**{**found, "rows": "\n".join(rows)})


def scale_section(found: dict[str, Any]) -> str:
    """The table of numbers of pictures, a column each."""
    columns = found["rows"]
    cells = {name: [f"{one['spent'][name]:.2f}" for one in columns] for name in found["phases"]}
    rows = [f"| {words} | {' | '.join(cells[name])} |" for name, words in found["phases"].items()]
    memory = f"| memory, bytes | {' | '.join(str(round(one['bytes'])) for one in columns)} |"
    heads = "".join(f" {one['count']:,} pictures |" for one in columns)
    return SCALE.format(**{**found, "columns": heads, "dashes": "---:|" * len(columns), "rows": "\n".join([*rows, memory])})


def studies_section(found: dict[str, Any]) -> str:
    """Runs an hour."""
    return STUDIES.format(
        **{**found, "jobs": _range(found["jobs"]), "jobs_going": _range(found["jobs_going"]), "warm": _range(found["warm"])}
    )


SECTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "epochs": epochs_section, "starting": starting_section, "studies": studies_section, "compiled": compiled_section, "frozen": frozen_section, "scale": scale_section,
    "methods": methods_section,
}  # fmt: skip


def text(found: dict[str, Any]) -> str:
    """The whole page.

    Args:
        found: Figures by the name of their part.
    """
    head = HEAD.format(
        cores=os.cpu_count(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        torch=metadata.version("torch"),
    )
    return "\n".join([head, *(section(found[name]) for name, section in SECTIONS.items() if name in found)])


def _range(found: dict[str, Any]) -> str:
    return f"{found['median']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def _row(row: dict[str, Any]) -> str:
    missed = row["goal"] is not None and row["median"] > row["goal"]
    goal = "" if row["goal"] is None else f"{row['goal']:.2f}{', missed' if missed else ''}"
    return f"| {row['recipe']} | {_range(row)} | {goal} | {abs(row['kept']):.2f} | {max(row['peak'], 0.0):.2f} |"
