"""What a run shows: a table of epochs, sentences in lines of the terminal's width, lines about what is slow, and how long all takes."""

import io
import sys
import types
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rekindle.fitting.workload import EVALUATION, Stopwatch, Workload
from rekindle.training import progress
from rekindle.training.epoch_table import BEST, FRESH, EpochTable
from rekindle.training.notebook import NotebookBar, in_notebook
from rekindle.training.progress import ProgressBar, wrapped

COUNT = st.integers(1, 10**5)
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def record(epoch: int, accuracy: float | None = None, restarted: bool = False, loss: float = 0.5) -> dict[str, Any]:
    val = {} if accuracy is None else {"val": {"loss": loss, "accuracy": accuracy}}
    timing = {"seconds": 1.0, "images_per_second": 123.4}
    return {"epoch": epoch, "train": {"loss": loss, "accuracy": 0.25}, **val, "restarted": restarted, "timing": timing}


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.floats(0, 1e4)), min_size=1, max_size=8))
@QUICK
def test_columns_stand_under_their_names_in_79_columns(epochs: list[tuple[float, bool, float]]) -> None:
    table = EpochTable()
    header, *lines = [line for number, values in enumerate(epochs) for line in table.lines(record(number, *values))]
    assert len(lines) == len(epochs)
    for line in lines:
        assert len(line) <= 79
        cells = line[: len(header)].split()
        assert len(cells) == len(header.replace("train ", "train_").replace("val ", "val_").split())
        assert line[len(header) - 1] != " "  # The last number ends under the end of its name.


def test_the_best_is_marked_as_keep_best_keeps_it() -> None:
    table = EpochTable()
    accuracies = [(0.5, False), (0.7, True), (0.5, False), (0.6, False), (0.55, False)]
    lines = [table.lines(record(number, *values))[-1] for number, values in enumerate(accuracies)]
    assert [BEST in line for line in lines] == [True, False, False, True, False]
    assert [FRESH in line for line in lines] == [False, True, False, False, False]
    assert BEST in table.lines(record(0, 0.1))[-1]  # The next run's first.


def test_a_resumed_run_marks_nothing() -> None:
    table = EpochTable()
    lines = [line for epoch in (4, 5) for line in table.lines(record(epoch, 0.9))]
    assert lines[0].startswith("epoch") and len(lines) == 3 and not any(BEST in line for line in lines)


def test_names_stand_again_after_a_sentence_and_fit_what_was_measured() -> None:
    table = EpochTable()
    assert "val %" not in table.lines(record(0))[0] and len(table.lines(record(1))) == 1
    table.interrupt()
    assert len(table.lines(record(2))) == 2


@given(st.lists(st.text("ab/-é 猫", min_size=1), max_size=20).map(" ".join), st.integers(20, 120))
@QUICK
def test_a_sentence_is_broken_between_words_alone(text: str, width: int) -> None:
    lines = wrapped(text, width)
    assert lines.split() == text.split()
    assert all(len(line) <= width or " " not in line for line in lines.splitlines())


def test_a_pipe_hears_of_what_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """After three seconds, then every ten, then at the end; nothing of what is quick."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with ProgressBar() as bar:
        for what, seconds in (("reading", 1.0), ("looking", 0.1)):
            for done in range(16):
                bar.progress(what, done, 15)
                now[0] += seconds
    assert sys.stderr.getvalue().splitlines() == ["reading: 3 of 15 ...", "reading: 13 of 15 ...", "reading: 15 done."]


@given(COUNT, COUNT, COUNT, COUNT, st.integers(1, 100), st.floats(1e-5, 1))
@QUICK
def test_what_a_run_takes_is_the_sum_of_its_parts(train: int, checked: int, measured: int, known: int, epochs: int, pace: float) -> None:
    work = Workload(train, checked, measured, known)
    whole = epochs * work.epoch(pace) + work.ending(pace)
    assert whole == pytest.approx(epochs * train * pace + work.beside_training(epochs, pace))


def test_the_pace_leaves_out_what_warms_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("rekindle.fitting.workload.time.perf_counter", lambda: now[0])
    told: list[tuple[str, int, int]] = []
    watch = Stopwatch(lambda *values: told.append(values))
    assert watch.seconds is None
    for seconds, done, total in [(9, 64, 164), (1, 128, 164), (1, 164, 164), (9, 50, 100), (2, 100, 100)]:
        now[0] += seconds
        watch("looking", done, total)
    assert watch.seconds == pytest.approx((1 + 1 + 2) / (64 + 36 + 50) / EVALUATION) and len(told) == 5


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What a notebook was given to show, in the place of IPython."""
    found: list[dict[str, str]] = []

    def display(page: dict[str, str], **options: object) -> Any:
        found.append(page)
        return types.SimpleNamespace(update=lambda page, **options: found.append(page))

    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=display))  # type: ignore[arg-type]
    return found


def test_a_notebook_shows_one_output_that_grows(pages: list[dict[str, str]]) -> None:
    assert in_notebook()
    with NotebookBar() as bar:
        bar.progress("reading <pictures>", 3, 9)
        bar.note("a < b")
        bar.step(0, 2, 1, 4, 0.5, 0.25, 99.0, 61.0)
        bar.epoch(record(0, 0.5))
    assert any("reading &lt;pictures&gt; 3/9" in page["text/html"] and 'value="3" max="9"' in page["text/html"] for page in pages)
    assert any("0:01:01 left" in page["text/html"] for page in pages)
    last = pages[-1]
    assert "<progress" not in last["text/html"] and "a &lt; b" in last["text/html"]
    assert last["text/plain"].splitlines()[0] == "a < b" and BEST in last["text/plain"]


def test_a_program_without_a_notebook_is_none() -> None:
    assert not in_notebook()
