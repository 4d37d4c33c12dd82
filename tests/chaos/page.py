"""The page on what the chaos run did: written from its counts, never by hand. Usage: python -m tests.chaos.page."""

import datetime
import json
import os
import platform
from importlib import metadata
from pathlib import Path

from tests.chaos.ledger import COSTS, Tally, read_all

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
PACKAGES = ("rekindle", "torch", "safetensors", "pillow", "filelock")
COMMAND = "make chaos"
SAID = 2  # Sentences shown of a fault.
TEMPLATE = """\
# Reliability

`{command}` damages, kills and races rekindle, and counts what is lost by it. It wrote this page on {date}.

**{total:,} faults, {lost} lost.** A fault counts as lost where a run, a study, a prepared task, a cache or a table ends otherwise than
undisturbed, bit for bit; where damaged weights are used; or where anything but a sentence comes out: an exception, a hang, a kill.

| fault | times | lost | what it said, for example | seed |
|---|---:|---:|---|---:|
{rows}

Processes are killed by SIGKILL. A kill at a write leaves half of what was being flushed, and at an append half a line. Every run has a cold
cache of its own, so that the cache's writes are disturbed too. Their pictures are not drawn. Killed studies and racing ones have runs that
train nothing. Processes are forked from one that has loaded torch, and have one thread.

Machine: {cores} cores, {system}; Python {python}; {packages}. All parts took {minutes:.0f} minutes, counted
one after the other; two run at a time.

## What digests cost

{digests}

## Again

`{command}` does all this with the same seeds; `{command} SHARE=0.02` does a fiftieth of it. Its code is in `tests/chaos`.
"""


def main() -> None:
    """Write the page."""
    tallies = read_all()
    PAGE.write_text(page(tallies), "utf-8")
    print(f"{PAGE}: {sum(tally.times for tally in tallies):,} faults, {sum(tally.lost for tally in tallies)} lost.")


def page(tallies: list[Tally]) -> str:
    """The page's text."""
    return TEMPLATE.format(
        command=COMMAND,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        total=sum(tally.times for tally in tallies),
        lost=sum(tally.lost for tally in tallies),
        rows="\n".join(row(tally) for tally in tallies),
        cores=os.cpu_count(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        packages=", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES),
        minutes=sum(tally.seconds for tally in tallies) / 60,
        digests=digest_cost(),
    )


def digest_cost() -> str:
    """A sentence on what hashing and comparing files of weights and states cost."""
    if not COSTS.is_file():
        return "Not measured this time: the photographs and weights that it is measured with were not there."
    cost = json.loads(COSTS.read_text("utf-8"))
    options = ", ".join(f"{name} {value}" for name, value in cost["options"].items())
    return (
        f"A whole run ({options}) took {cost['seconds']:.1f} s of processor time. The digests of its weights, checkpoints and model, written and "
        f"compared, took {cost['files']:.3f} s of them, or {100 * cost['files'] / cost['seconds']:.2f} %. The hashes of the data and the weights that "
        f"name the run took {cost['contents']:.3f} s more, or {100 * cost['contents'] / cost['seconds']:.2f} %."
    )


def row(tally: Tally) -> str:
    """A fault's line; of what was said, the most frequent."""
    said = "; ".join(sentence.replace("|", "\\|") for sentence, _ in tally.said.most_common(SAID))
    return f"| {tally.fault} | {tally.times:,} | {tally.lost} | {said} | {tally.seed} |"


if __name__ == "__main__":
    main()
