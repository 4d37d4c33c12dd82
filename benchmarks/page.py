"""The page on performance, from measured figures; it is never edited by hand."""

import os
import platform
from collections.abc import Callable
from importlib import metadata
from typing import Any

HEAD = """\
# Performance

`make bench` measured this and wrote this page. Every figure is a ratio of two things that took turns in one process, the median of pairs
with the quartiles in brackets: it says what something costs beside something else, whatever the machine.

Machine: {cores} cores, {system}; Python {python}, torch {torch}.
"""
METHODS = """\
## What a method adds to a training step

A step of {model} at {image_size} pixels, batch {batch_size}, with {threads} thread(s), over one with plain L2, on {date}. Memory is counted in copies
of the weights in float32, beyond what L2 takes: what is held from step to step beside the frozen source, and the most that is held while the
gradients of penalties are added.

| method | step over an L2 step | goal | held | at most |
|---|---:|---:|---:|---:|
{rows}
"""


def methods_section(found: dict[str, Any]) -> str:
    """The table of methods."""
    return METHODS.format(**found["setting"], **{**found, "rows": "\n".join(_row(row) for row in found["rows"])})


SECTIONS: dict[str, Callable[[dict[str, Any]], str]] = {"methods": methods_section}


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
    return "\n".join([head, *(SECTIONS[name](figures) for name, figures in found.items())])


def _row(row: dict[str, Any]) -> str:
    spread = f"{row['median']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
    missed = row["goal"] is not None and row["median"] > row["goal"]
    goal = "" if row["goal"] is None else f"{row['goal']:.2f}{', missed' if missed else ''}"
    return f"| {row['recipe']} | {spread} | {goal} | {abs(row['kept']):.2f} | {max(row['peak'], 0.0):.2f} |"
