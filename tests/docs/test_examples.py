"""Commands that README, docs and help show can be typed, and lead nobody into a run that rekindle itself cautions against."""

import argparse
import re
import shlex
from collections.abc import Iterator

import pytest

import rekindle
from rekindle.cli import parser
from rekindle.data.tasks import TASKS
from rekindle.fitting.choices import epochs_of
from rekindle.methods._catalog import VARIANTS
from rekindle.registry import methods, parse
from rekindle.spec import RunSpec, hints
from tests.docs.pages import PAGES, ROOT, commands

FEW = 100  # Training pictures of a small set, which is what the product is for.


def helps(top: argparse.ArgumentParser) -> Iterator[str]:
    """The examples below the help of every command."""
    yield from (top.epilog or "").removeprefix("example: ").split(";")
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from helps(below)


def fits() -> list[str]:
    """Those that train on data and leave nothing out."""
    found = {
        line.partition("#")[0].partition("  (")[0].strip()
        for line in (*helps(parser()), *(line for page in PAGES for line in commands(page)))
    }
    return sorted(
        line for line in found if re.match("rekindle fit [^-]", line) and not re.search("…|--resume|--help|--config|[A-Z]{4}", line)
    )


def spec_of(command: str) -> RunSpec:
    options = vars(parser().parse_args(shlex.split(command)[1:]))
    return RunSpec(**{name: value for name, value in options.items() if name in hints(RunSpec)})


def cautioned(spec: RunSpec) -> list[str]:
    """What a run of that length, on that many pictures, would be told of its methods."""
    images = TASKS[spec.data].counts["train"] if spec.data in TASKS else FEW
    source, model = rekindle.load("tiny", classes=3, weights="none")
    steps = -(-images // spec.batch_size)
    return rekindle.Tuner(model, parse(spec.method), source=source, epochs=epochs_of(spec, images), steps_per_epoch=steps).warnings()


@pytest.mark.parametrize("command", fits())
def test_no_example_is_cautioned_against(command: str) -> None:
    spec = spec_of(command)
    if {*re.findall(r"\b([a-z]\w*)(?=[(+]|$)", spec.method)} <= {*methods(), *VARIANTS}:  # Else it is the reader's own.
        assert cautioned(spec) == []


def test_an_example_that_leads_astray_is_noticed() -> None:
    assert len(fits()) >= 8
    assert "steps after its last fresh draw" in cautioned(spec_of("rekindle fit photos/ --method 'rifle(periods=2)' --epochs 20"))[0]


def test_readme_and_help_lead_with_the_default() -> None:
    for text in ((ROOT / "README.md").read_text("utf-8"), parser().format_help()):
        first = re.search(r"rekindle fit .*", text)
        assert first and first[0].split()[2] == "photos/" and "--" not in first[0]
