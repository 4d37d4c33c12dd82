"""A study's tables as Markdown, CSV and LaTeX; only what is significant is bold."""

from rekindle.files import csv_text
from rekindle.report.format import escape
from rekindle.report.statistics import LEVEL
from rekindle.study.grid import size_text
from rekindle.study.report.numbers import Entry, StudyNumbers
from rekindle.study.report.tables import (
    PAIRED,
    PAIRS,
    PLACE,
    PUBLISHED,
    SELECTED,
    TEST_SELECTED,
    WORDS,
    Table,
    accuracies,
    costs,
    failures,
    legend,
    over_tasks,
    over_tasks_notes,
    pairs,
    published_differences,
    published_rows,
    selections,
    sentences,
    settings_text,
    test_selected,
)


def markdown(found: StudyNumbers, pictures: dict[str, str], published: bool = False) -> str:
    """The whole report.

    Args:
        found: The numbers.
        pictures: {caption: file name} of figures beside the report.
        published: Whether the RIFLE paper's numbers stand beside ours.
    """
    grid = found.study.grid
    parts = [f"# {escape(grid.title)}", *(escape(sentence) for sentence in sentences(found))]
    for regularizer in found.regularizers:
        parts += [
            f"## Accuracy (%){_with(regularizer)}",
            _markdown(accuracies(found, regularizer), bold=_marker(found, regularizer)),
            legend(found),
        ]
    parts.append(f"## Differences from {escape(found.baseline)}, paired by seed (points)")
    parts += [_markdown(pairs(found)), PAIRS]
    for overall in found.overall:
        if overall.rows:
            parts += [
                f"## Over tasks{_with(overall.regularizer)}",
                _markdown(over_tasks(overall)),
                *(escape(text) for text in over_tasks_notes(overall)),
            ]
    if found.selections:
        parts += ["## How values were chosen", _markdown(selections(found)), SELECTED]
    if found.test_selected:
        parts += ["## Test-selected, for comparison with published tables only", _markdown(test_selected(found)), TEST_SELECTED]
    parts += ["## Cost", _markdown(costs(found))]
    if published:
        parts += published_parts(found)
    parts += [f"## {caption}\n\n![{caption}]({name})" for caption, name in pictures.items()]
    if found.failures:
        parts += ["## Failed runs", _markdown(failures(found))]
    return "\n\n".join(parts) + "\n"


def runs_csv(found: StudyNumbers) -> str:
    """A line for each final run, done or not; accuracies from 0 to 1."""
    rows = [
        [
            *_place(entry), outcome.candidate, outcome.seed, outcome.state, outcome.split,
            *(("" if value is None else value) for value in (outcome.accuracy, outcome.val, outcome.lr, outcome.seconds)), outcome.run, outcome.error,
        ] for entry in found.entries for outcome in entry.outcomes
    ]  # fmt: skip
    return csv_text([*PLACE, "values", "seed", "state", "split", "accuracy", "val_accuracy", "lr", "seconds", "run", "error"], rows)


def table_csv(found: StudyNumbers) -> str:
    """A line for each method and setting; accuracies and differences from 0 to 1, empty where there is none."""
    rows = []
    for entry in found.entries:
        pair = entry.pair or {}
        figures = [entry.mean, entry.std, *(pair.get(key) for key in PAIRED)]
        rows.append([
            *_place(entry), entry.candidate or "", len(entry.outcomes), len(entry.done), entry.failed,
            *("" if value is None else value for value in figures), entry.verdict,
        ])  # fmt: skip
    return csv_text([*PLACE, "values", "seeds", "done", "failed", "mean", "std", *PAIRED, "verdict"], rows)


def _place(entry: Entry) -> list[str | int]:
    return [entry.setting.regularizer, entry.setting.task, entry.setting.size, entry.method]


def latex(found: StudyNumbers) -> str:
    r"""One table in the papers' layout, for \usepackage{booktabs}: a block for each regulariser, a row a setting, a column a method."""
    methods = [method for method in found.methods if any(entry.method == method for entry in found.entries)]
    sizes = len({setting.size for setting in found.study.grid.settings}) > 1
    lines = [r"\begin{tabular}{l" + "c" * len(methods) + "}", r"\toprule", " & ".join(["Datasets", *map(_tex, methods)]) + r" \\"]
    for regularizer in found.regularizers:
        lines.append(r"\midrule")
        if regularizer:
            lines.append(rf"\multicolumn{{{len(methods) + 1}}}{{c}}{{fine-tuning with {_tex(regularizer)}}} \\")
        for setting in settings_text(found, regularizer):
            name = f"{setting.task}, {size_text(setting.size)}" if sizes else setting.task
            cells = [_tex_cell(found.by_place.get((setting, method))) for method in methods]
            lines.append(" & ".join([_tex(name), *cells]) + r" \\")
    seeds = sorted({len(entry.done) for entry in found.entries})
    return "\n".join([
        f"% {' '.join(found.study.grid.title.split())}: accuracy in per cent, mean and standard deviation (ddof 1) over {' or '.join(map(str, seeds))} seeds.",
        f"% Bold: significantly higher than {' '.join(found.baseline.split())} (paired t test over seeds, p < {LEVEL} after Holm over the methods of the row).",
        "% A small number after a mean counts its seeds where some are missing or failed.",
        *lines, r"\bottomrule", r"\end{tabular}", "",
    ])  # fmt: skip


def _tex_cell(entry: Entry | None) -> str:
    if entry is None:
        return ""
    if entry.mean is None:
        return "failed" if entry.failed else "--"
    spread = rf" \pm {100 * entry.std:.2f}" if entry.std is not None else ""
    text = f"{100 * entry.mean:.2f}"
    text = rf"\mathbf{{{text}}}" if entry.verdict == "higher" else text
    few = "" if entry.complete else rf"_{{\,n={len(entry.done)}}}"
    return f"${text}{spread}{few}$"


def _tex(text: str) -> str:
    special = {
        "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
        **{letter: "\\" + letter for letter in "&%$#_{}"},
    }  # fmt: skip
    return "".join(special.get(letter, letter) for letter in " ".join(text.split()))


def _marker(found: StudyNumbers, regularizer: str) -> dict[tuple[int, int], str]:
    """Which cells of the table of accuracies are marked, by row and column."""
    methods = accuracies(found, regularizer)[0][2:]
    marks = {}
    for row, setting in enumerate(settings_text(found, regularizer)):
        for column, method in enumerate(methods):
            entry = found.by_place.get((setting, method))
            if entry and entry.verdict:
                marks[row, column + 2] = entry.verdict
    return marks


def _markdown(table: Table, bold: dict[tuple[int, int], str] | None = None) -> str:
    header, rows = table
    lines = [[escape(name) for name in header], ["---" if name in WORDS else "---:" for name in header]]
    for i, row in enumerate(rows):
        cells = [escape(cell) for cell in row]
        for j, cell in enumerate(cells):
            mark = (bold or {}).get((i, j))
            cells[j] = f"**{cell}**" if mark == "higher" else f"{cell} ▼" if mark == "lower" else cell
        lines.append(cells)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _with(regularizer: str) -> str:
    return f" with {escape(regularizer)}" if regularizer else ""


def published_parts(found: StudyNumbers) -> list[str]:
    """Sections of Markdown with the paper's numbers."""
    parts = []
    rows = published_rows(found)
    if rows[1]:
        parts += ["## Beside the published numbers", _markdown(rows)]
    means = published_differences(found)
    parts += ["## Published differences from Original, and ours", _markdown(means), PUBLISHED] if means[1] else []
    return parts
