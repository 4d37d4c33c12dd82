"""A study's tables as Markdown, CSV and LaTeX; only what is significant is bold."""

from rekindle.errors import alternatives
from rekindle.files import csv_text
from rekindle.report.format import escape, markdown_table
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


def markdown(numbers: StudyNumbers, pictures: dict[str, str], published: bool = False) -> str:
    """The whole report.

    Args:
        numbers: The numbers.
        pictures: {caption: file name} of figures beside the report.
        published: Whether the RIFLE paper's numbers stand beside ours.

    Returns:
        Text.
    """
    grid = numbers.study.grid
    parts = [f"# {escape(grid.title)}", *(escape(sentence) for sentence in sentences(numbers))]
    for regularizer in numbers.regularizers:
        parts += [
            f"## Accuracy (%){_with(regularizer)}",
            _markdown(accuracies(numbers, regularizer), bold=_marker(numbers, regularizer)),
            legend(numbers),
        ]
    parts.append(f"## Differences from {escape(numbers.baseline)}, paired by seed (points)")
    parts += [_markdown(pairs(numbers)), PAIRS]
    for overall in numbers.overall:
        if overall.rows:
            parts += [
                f"## Over tasks{_with(overall.regularizer)}",
                _markdown(over_tasks(overall)),
                *(escape(text) for text in over_tasks_notes(overall)),
            ]
    if numbers.selections:
        parts += ["## How values were chosen", _markdown(selections(numbers)), SELECTED]
    if numbers.test_selected:
        parts += ["## Test-selected, for comparison with published tables only", _markdown(test_selected(numbers)), TEST_SELECTED]
    parts += ["## Cost", _markdown(costs(numbers))]
    if published:
        parts += published_parts(numbers)
    parts += [f"## {caption}\n\n![{caption}]({name})" for caption, name in pictures.items()]
    if numbers.failures:
        parts += ["## Failed runs", _markdown(failures(numbers))]
    return "\n\n".join(parts) + "\n"


def runs_csv(numbers: StudyNumbers) -> str:
    """A line for each final run, done or not; accuracies from 0 to 1.

    Returns:
        The text of a CSV file.
    """
    rows = [
        [
            *_place(entry), outcome.candidate, outcome.seed, outcome.state, outcome.split,
            *(("" if value is None else value) for value in (outcome.accuracy, outcome.val, outcome.lr, outcome.seconds)), outcome.run, outcome.error,
        ] for entry in numbers.entries for outcome in entry.outcomes
    ]  # fmt: skip
    return csv_text([*PLACE, "values", "seed", "state", "split", "accuracy", "val_accuracy", "lr", "seconds", "run", "error"], rows)


def table_csv(numbers: StudyNumbers) -> str:
    """A line for each method and setting; accuracies and differences from 0 to 1, empty where there is none.

    Returns:
        The text of a CSV file.
    """
    rows = []
    for entry in numbers.entries:
        pair = entry.pair or {}
        figures = [entry.mean, entry.std, *(pair.get(key) for key in PAIRED)]
        rows.append([
            *_place(entry), entry.candidate or "", len(entry.outcomes), len(entry.done), entry.failed,
            *("" if value is None else value for value in figures), entry.verdict,
        ])  # fmt: skip
    return csv_text([*PLACE, "values", "seeds", "done", "failed", "mean", "std", *PAIRED, "verdict"], rows)


def _place(entry: Entry) -> list[str | int]:
    return [entry.setting.regularizer, entry.setting.task, entry.setting.size, entry.method]


def latex(numbers: StudyNumbers) -> str:
    r"""One table in the papers' layout, for \usepackage{booktabs}: a block for each regulariser, a row a setting, a column a method.

    Returns:
        LaTeX.
    """
    methods = [method for method in numbers.methods if any(entry.method == method for entry in numbers.entries)]
    sizes = len({setting.size for setting in numbers.study.grid.settings}) > 1
    lines = [r"\begin{tabular}{l" + "c" * len(methods) + "}", r"\toprule", " & ".join(["Datasets", *map(_tex, methods)]) + r" \\"]
    for regularizer in numbers.regularizers:
        lines.append(r"\midrule")
        if regularizer:
            lines.append(rf"\multicolumn{{{len(methods) + 1}}}{{c}}{{fine-tuning with {_tex(regularizer)}}} \\")
        for setting in settings_text(numbers, regularizer):
            name = f"{setting.task}, {size_text(setting.size)}" if sizes else setting.task
            cells = [_tex_cell(numbers.by_place.get((setting, method))) for method in methods]
            lines.append(" & ".join([_tex(name), *cells]) + r" \\")
    seeds = sorted({len(entry.done) for entry in numbers.entries})
    return "\n".join([
        f"% {' '.join(numbers.study.grid.title.split())}: accuracy in per cent, mean and standard deviation (ddof 1) over {alternatives(seeds, 'seed')}.",
        f"% Bold: significantly higher than {' '.join(numbers.baseline.split())} (paired t test over seeds, p < {LEVEL} after Holm over all comparisons of the study).",
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


def _marker(numbers: StudyNumbers, regularizer: str) -> dict[tuple[int, int], str]:
    """Which cells of the table of accuracies are marked, by row and column."""
    methods = accuracies(numbers, regularizer)[0][2:]
    marks = {}
    for row, setting in enumerate(settings_text(numbers, regularizer)):
        for column, method in enumerate(methods):
            entry = numbers.by_place.get((setting, method))
            if entry and entry.verdict:
                marks[row, column + 2] = entry.verdict
    return marks


def _markdown(table: Table, bold: dict[tuple[int, int], str] | None = None) -> str:
    header, rows = table
    lines = []
    for i, row in enumerate(rows):
        cells = [escape(cell) for cell in row]
        for j, cell in enumerate(cells):
            mark = (bold or {}).get((i, j))
            cells[j] = f"**{cell}**" if mark == "higher" else f"{cell} ▼" if mark == "lower" else cell
        lines.append(cells)
    return markdown_table(header, lines, WORDS)


def _with(regularizer: str) -> str:
    return f" with {escape(regularizer)}" if regularizer else ""


def published_parts(numbers: StudyNumbers) -> list[str]:
    """Sections of Markdown with the paper's numbers.

    Returns:
        Sections, which may be none.
    """
    parts = []
    rows = published_rows(numbers)
    if rows[1]:
        parts += ["## Beside the published numbers", _markdown(rows)]
    means = published_differences(numbers)
    parts += ["## Published differences from Original, and ours", _markdown(means), PUBLISHED] if means[1] else []
    return parts
