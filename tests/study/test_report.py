"""The report of a study: numbers by hand, nothing bold that is not significant, and a page that no name can break."""

import copy
import csv
import html
import re
import shutil
import statistics
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from scipy import stats

from rekindle.report.statistics import average_ranks, rank_tests, smallest_p, wilcoxon_over_tasks
from rekindle.study.grid import Cell, uneven_choices
from rekindle.study.grid_file import from_dict
from rekindle.study.plan import plan
from rekindle.study.report.figures import LEAST_RANGE, critical_difference, differences
from rekindle.study.report.formats import latex, markdown, runs_csv
from rekindle.study.report.numbers import StudyNumbers, study_numbers
from rekindle.study.report.page import html as html_page
from rekindle.study.report.page import plots, write
from rekindle.study.report.published import published
from rekindle.study.report.tables import sentences
from rekindle.study.store import Study
from rekindle.study.worker import run_cell
from tests.study import fakes

EVIL = "<script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\">"


def run(folder: Path, train_cell: Any = fakes.answer, **changes: Any) -> Study:
    study = Study.create(folder, from_dict({**copy.deepcopy(fakes.GRID), **changes}))
    while any(run_cell(study, cell, train_cell) for cell in study.cells()):
        pass
    return study


def with_accuracy(values: Any) -> Any:
    """A run_cell that gives values(cell)."""
    return lambda cell, runs, listener: fakes.write(cell, runs, values(cell))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> StudyNumbers:
    return study_numbers(run(tmp_path_factory.mktemp("report") / "study"))


def test_means_and_paired_differences_by_hand(found: StudyNumbers) -> None:
    cells = {(cell.setting, cell.method, cell.spec.seed): fakes.accuracy(cell) for cell in found.study.cells()}
    for entry in found.entries:
        values = [cells[entry.setting, entry.method, seed] for seed in range(3)]
        assert (
            entry.mean == pytest.approx(statistics.mean(values))
            and entry.std == pytest.approx(statistics.stdev(values))
            and entry.seeds == "3"
        )
        if entry.method == "Original":
            assert entry.pair is None
            continue
        test = stats.ttest_rel(values, [cells[entry.setting, "Original", seed] for seed in range(3)])
        assert entry.pair and entry.pair["p"] == pytest.approx(test.pvalue)
        assert (entry.pair["low"], entry.pair["high"]) == pytest.approx(tuple(test.confidence_interval()))
        # Holm over the two methods of all eight settings.
        ordered = sorted(other.pair["p"] for other in found.entries if other.pair)
        expected = max((16 - rank) * p for rank, p in enumerate(ordered) if p <= entry.pair["p"])
        assert len(ordered) == 16 and entry.pair["p_holm"] == pytest.approx(min(1.0, expected))
        assert entry.verdict == ("" if entry.pair["p_holm"] >= 0.05 else "higher" if entry.pair["difference"] > 0 else "lower")


def test_only_significant_numbers_are_bold_and_seeds_are_in_sight(found: StudyNumbers) -> None:
    text, tex = markdown(found, {}), latex(found)
    higher = [entry for entry in found.entries if entry.verdict == "higher"]
    lower = [entry for entry in found.entries if entry.verdict == "lower"]
    assert 0 < len(higher) < len(found.entries)
    assert text.count("**") == 2 * len(higher) and text.count("▼") == len(lower) + 2 and tex.count(r"\mathbf") == len(higher)
    cells = [cell for line in text.splitlines() if " ± " in line and line.startswith("|") for cell in line.strip("|").split(" | ")[2:]]
    assert len(cells) == len(found.entries) and all("(3)" in cell for cell in cells)
    rows = [line for line in tex.splitlines() if "pm" in line]
    assert len(rows) == 8 and all(row.count("&") == 3 and row.endswith(r"\\") for row in rows) and tex.count("fine-tuning with") == 2


def test_missing_runs_are_counted_and_left_out_of_the_tests_over_tasks(tmp_path: Path) -> None:
    study = Study.create(tmp_path / "study", from_dict(copy.deepcopy(fakes.GRID)))
    for cell in study.cells()[:-1]:
        run_cell(study, cell, fakes.answer)
    made = study_numbers(study)
    short = next(entry for entry in made.entries if not entry.complete)
    assert short.seeds == "2 of 3" and short.pair and short.pair["n"] == 2
    overall = next(one for one in made.overall if one.regularizer == short.setting.regularizer)
    assert any(short.method in text for text in overall.left_out)
    row = next(row for row in overall.rows if row["method"] == short.method)
    assert row["wins"] + row["ties"] + row["losses"] == 3


def test_each_setting_has_a_panel_that_shows_all_of_it_and_zero(found: StudyNumbers) -> None:
    figure = differences(found)
    assert figure is not None and len(figure.axes) == len(found.study.grid.settings)
    for axes, setting in zip(figure.axes, found.study.grid.settings, strict=True):
        low, high = axes.get_xlim()
        assert axes.get_title(loc="left") == str(setting) and low <= -LEAST_RANGE and high >= LEAST_RANGE
        pairs = [entry.pair for entry in found.entries if entry.setting == setting and entry.pair]
        assert [label.get_text() for label in axes.get_yticklabels()] == ["RIFLE (3)", "Dropout (3)"]
        assert all(low < 100 * value < high for pair in pairs for value in (*pair["each"], pair["low"], pair["high"]))


def test_a_baseline_that_failed_leaves_no_differences(tmp_path: Path) -> None:
    def no_baseline(cell: Cell, runs: Path, listener: Any) -> Path:
        if cell.method == "Original":
            raise ValueError("no")
        return fakes.answer(cell, runs, listener)

    made = study_numbers(run(tmp_path / "study", no_baseline, sizes=[10]))
    assert all(entry.pair is None and not entry.verdict for entry in made.entries) and not any(
        one.rows or one.ranks for one in made.overall
    )
    write(made.study)


def test_seeds_that_agree_exactly_give_no_verdict(tmp_path: Path) -> None:
    study = run(tmp_path / "study", with_accuracy(lambda cell: 0.7 + 0.1 * (cell.method == "RIFLE")))
    assert not any(entry.verdict for entry in study_numbers(study).entries)


def test_wilcoxon_needs_tasks_and_says_what_they_can_show(tmp_path: Path) -> None:
    assert wilcoxon_over_tasks([1.0, 2, 3, 4, 5]) is None and smallest_p(5) == 0.0625
    assert wilcoxon_over_tasks([1.0, 2, 3, 4, 5, 6]) == smallest_p(6) == 0.03125
    assert wilcoxon_over_tasks([0.0] * 9) is None and wilcoxon_over_tasks([0.01, 0.02, 0.03, 0.04, 0.05, 0.0, 1e-17]) is None
    assert wilcoxon_over_tasks([0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.0]) == smallest_p(6)
    tasks = {f"task{number}": f"data{number}" for number in range(7)}
    gain = {"Original": 0.0, "RIFLE": 0.02, "Dropout": -0.02}

    def values(cell: Cell) -> float:
        return 0.6 + gain[cell.method] + 0.01 * fakes.share(cell.setting.task, cell.method, cell.spec.seed)

    study = run(tmp_path / "study", with_accuracy(values), tasks=tasks, regularizers={"L2": "l2"})
    made = study_numbers(study)
    (overall,) = made.overall
    rows = {row["method"]: row for row in overall.rows}
    # Two sizes of one task are one task: seven differences, not fourteen.
    assert rows["RIFLE"]["tasks"] == 7 and rows["RIFLE"]["p"] == rows["RIFLE"]["smallest_p"] == 2 / 2**7
    assert rows["RIFLE"]["p_holm"] == 4 / 2**7 and rows["RIFLE"]["wins"] + rows["RIFLE"]["ties"] == 14 and rows["Dropout"]["positive"] == 0
    assert overall.ranks == {"Original": 2.0, "RIFLE": 1.0, "Dropout": 3.0} and overall.ranked == 7
    assert overall.tests and overall.tests[0] < 0.01 and overall.tests[1][0][1] == pytest.approx(6 / 2**7)
    pytest.importorskip("scikit_posthocs")
    assert critical_difference(made, overall) is not None
    assert "ranks-0" in plots(made)[0] and "0.0156" in markdown(made, {})


def test_ranks_share_ties_and_need_three_methods() -> None:
    assert average_ranks([[1.0, 1.0, 0.0], [0.0, 1.0, 2.0]]) == [2.25, 1.75, 2.0]
    assert rank_tests([[1.0, 2.0]] * 9) is None and rank_tests([[1.0, 2.0, 3.0]] * 5) is None and rank_tests([]) is None


def test_selected_and_test_selected_numbers_stand_apart(tmp_path: Path) -> None:
    methods = {name: {"method": recipe, "grid": {"lr": [0.1, 0.2]}} for name, recipe in list(fakes.GRID["methods"].items())[:2]}

    # On validation 0.1 is better, on test 0.2.
    def values(cell: Cell) -> float:
        better = cell.candidate == ("lr=0.1" if cell.stage == "select" else "lr=0.2")
        return 0.5 + 0.1 * better + 0.01 * fakes.share(cell.spec.seed, cell.method)

    changes = {"methods": methods, "sizes": [10], "tasks": {"cats": "cats"}, "regularizers": {"L2": "l2"}}
    study = run(tmp_path / "study", with_accuracy(values), **changes, selection={"test_selected": True, "seeds": 2})
    made = study_numbers(study)
    assert {entry.candidate for entry in made.entries} == {"lr=0.1"} and {row["candidate"] for row in made.test_selected} == {"lr=0.2"}
    assert all(row["mean"] > 0.6 > (made.by_place[row["setting"], row["method"]].mean or 1) for row in made.test_selected)
    text = markdown(made, {})
    assert text.index("## Test-selected") > text.index("## How values were chosen") > text.index("## Accuracy")
    assert made.costs[0]["candidates"] == 2 and made.costs[0]["selection"] == 2 * 2 * 2.0


def test_published_tables_are_whole() -> None:
    rows = published()
    assert len(rows) == 144 + 54 - 18
    tasks = {task for _, task, _ in rows}
    gains = {name: [rows[name, task, "RIFLE"][0] - rows[name, task, "Original"][0] for task in tasks] for name in ("L2", "L2-SP")}
    assert round(statistics.mean(gains["L2"]), 3) == 0.960 and round(statistics.mean(gains["L2-SP"]), 3) == 1.013
    assert (round(min(gains["L2-SP"]), 2), round(max(gains["L2"]), 2)) == (0.34, 1.93)


def test_published_numbers_stand_beside_ours_on_request(tmp_path: Path) -> None:
    study = run(tmp_path / "study", tasks={"birds": {"data": "birds", "published": "CUB-200-2011"}}, sizes=[10])
    assert "published" not in (write(study) / "report.md").read_text("utf-8").lower()
    folder = write(study, published=True)
    text = (folder / "report.md").read_text("utf-8")
    line = next(line for line in text.splitlines() if line.startswith("| birds, 10 a class, L2 | RIFLE") and "81.13" in line)
    assert "81.13 ± 0.23 (5)" in line and "+0.68" in line
    assert "81.13 ± 0.23 (5)" in (folder / "report.html").read_text("utf-8")
    assert re.search(r"L2 \| RIFLE \| \+0\.96 \| \+0\.47 to \+1\.93 \| 9", text)


def test_equal_studies_give_equal_bytes(tmp_path: Path) -> None:
    pages = [write(run(tmp_path / name, sizes=[10], tasks={"cats": "cats"})) for name in ("a", "b")]
    for name in ("report.md", "report.html", "runs.csv", "table.csv", "table.tex"):
        assert (pages[0] / name).read_bytes() == (pages[1] / name).read_bytes()


def test_every_run_is_linked(found: StudyNumbers) -> None:
    page = html_page(found, {"curves": [], "plots": [], "notes": []}, False)
    links = {html.unescape(link) for link in re.findall(r'<a href="([^"]+)"', page)}
    rows = list(csv.DictReader(runs_csv(found).splitlines()))
    assert len(rows) == len(links) == 72 and all((found.study.folder / row["run"]).is_dir() for row in rows)
    assert {unquote(link) for link in links} == {f"../{row['run']}/report.html" for row in rows}


def browse(page: Path, width: int = 1280) -> str:
    """The page's document after its scripts ran in a browser."""
    browser = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine: the page's script needs a browser")
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--window-size={width},900",
        "--virtual-time-budget=2000",
        "--dump-dom",
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_names_are_inert_and_the_page_works_in_a_browser(tmp_path: Path) -> None:
    methods = {"Original": "{regularizer}", EVIL: "{regularizer}+rifle(periods=2)"}
    study = run(tmp_path / "study", title=EVIL, methods=methods, tasks={EVIL: "cats"}, sizes=[10])
    folder = write(study)
    source = (folder / "report.html").read_text("utf-8")
    assert "<img src=x" not in source and source.count("<script>") == 1
    # Nothing is fetched: addresses are names of XML vocabularies alone.
    assert not re.search(r"https?:", re.sub(r'xmlns(:\w+)?="[^"]+"', "", source))
    dom = browse(folder / "report.html")
    title = re.search(r"<title>(.*?)</title>", dom)
    assert title and html.unescape(title[1]).startswith(EVIL)
    # The same page with a visitor who clicks: sorts by mean, downwards, and switches the second method off.
    visit = """<script>
    const mean = document.querySelectorAll("#results th button")[4]; mean.click(); mean.click();
    document.querySelector('input[data-curve="1"]').click();
    document.documentElement.dataset.wide = document.documentElement.scrollWidth > window.innerWidth;
    </script></body>"""
    visited = re.sub(r"<meta http-equiv[^>]*>", "", source).replace("</body>", visit)
    (folder / "visited.html").write_text(visited, "utf-8")
    for width in (1280, 400):
        dom = browse(folder / "visited.html", width)
        table = dom[dom.index('id="results"') : dom.index("Learning curves")]
        means = [float(row[4]) for row in (re.findall(r'<td[^>]*data-value="([^"]*)"|<td', line) for line in table.split("<tr>")[2:])]
        assert len(means) == 4 and means == sorted(means, reverse=True)
        assert 'aria-sort="descending"' in table and 'data-wide="false"' in dom
        hidden = re.findall(r'<g id="curve-(\d)-\d-line"([^>]*)>', dom)
        assert {number: "display: none" in rest for number, rest in hidden} == {"0": False, "1": True}
    # The page's own policy lets no other script run.
    (folder / "refused.html").write_text(source.replace("</body>", "<script>document.title='broken'</script></body>"), "utf-8")
    title = re.search(r"<title>(.*?)</title>", browse(folder / "refused.html"))
    assert title and title[1] != "broken"


def test_the_page_opens_with_the_conclusion(tmp_path: Path) -> None:
    """A rival that is always a tenth better is named; one that scatters around the baseline is not."""
    gains = {"Original": 0.0, "RIFLE": 0.1, "Dropout": 0.001}
    values = {
        method: with_accuracy(lambda cell: 0.5 + gains[cell.method] + 0.01 * fakes.share(cell.method, cell.spec.seed, str(cell.setting)))
        for method in gains
    }
    study = run(tmp_path / "study", lambda cell, runs, listener: values[cell.method](cell, runs, listener), seeds=5)
    numbers = study_numbers(study)
    compared = [entry for entry in numbers.entries if entry.pair]
    first, second, *_ = sentences(numbers)
    higher = sum(entry.verdict == "higher" for entry in compared)
    assert higher == sum(entry.method == "RIFLE" for entry in compared) > 0
    assert first.startswith(
        f"Of {len(compared)} comparisons with Original, {higher} are significantly higher and 0 are significantly lower"
    )
    assert "higher: RIFLE (" in first and "Dropout" not in first
    assert second.startswith("In the mean over settings RIFLE is highest: +")
    page = html_page(numbers, {"curves": [], "plots": [], "notes": []}, False)
    assert page.index("In the mean over settings RIFLE") < page.index("Every method in every setting")


def test_a_method_that_chooses_what_others_cannot_is_said(tmp_path: Path) -> None:
    methods = {"Original": "l2", "Dropout": {"method": "l2+dropout(p=0.2)", "grid": {"lr": [0.1, 0.2]}}}
    uneven = {"methods": methods, "selection": {"seeds": 1, "equal_budgets": False}}
    study = run(tmp_path / "study", **uneven)
    [said] = [text for text in sentences(study_numbers(study)) if "cannot choose" in text]
    assert said.startswith("Original cannot choose lr, which other methods choose in ") and "shared: {lr: [...]}" in said
    assert said in plan(study).notes
    fair = from_dict(
        {**copy.deepcopy(fakes.GRID), "methods": {"Original": "l2", "Dropout": "l2+dropout(p=0.2)"}, "shared": {"lr": [0.1, 0.2]}}
    )
    assert uneven_choices(fair) == []
