"""A study's numbers as tables and sentences. The number of seeds stands beside each."""

from statistics import mean

from rekindle.errors import agree, alternatives, number_of
from rekindle.report.format import duration, escape, p_value
from rekindle.report.statistics import LEVEL, smallest_p
from rekindle.study.grid import Setting, size_text, uneven_choices
from rekindle.study.report.numbers import Entry, Overall, StudyNumbers
from rekindle.study.report.published import beside, differences

NONE = "–"
NAMED = 4  # Comparisons that the conclusion names.
WORDS = ("task", "size", "setting", "method", "values", "outcome", "reading", "regulariser", "message")
PLACE = ("regularizer", "task", "size", "method")
PAIRED = ("difference", "low", "high", "p", "p_holm")
Table = tuple[list[str], list[list[str]]]


def sentences(numbers: StudyNumbers) -> list[str]:
    """What was found, what was run, and what is missing.

    Returns:
        Sentences, the most important first.
    """
    done = sum(len(entry.done) for entry in numbers.entries)
    planned = sum(len(entry.outcomes) for entry in numbers.entries)
    seeds = sorted({len(entry.outcomes) for entry in numbers.entries})
    split = {
        frozenset({"test"}): "the test split, read once at the end",
        frozenset({"val"}): "the validation split, since there is no test split",
    }
    where = split.get(frozenset(numbers.splits), "the test split where there is one, or else the validation split")
    failed = f", {len(numbers.failures)} failed" if numbers.failures else ""
    text = [
        *conclusion(numbers),
        f"{number_of(len(numbers.methods), 'method')} in {number_of(len(numbers.study.grid.settings), 'setting')} with {alternatives(seeds, 'seed')}: {done} of {number_of(planned, 'run')} done{failed}.",
        f"Accuracy is on {where}; means and standard deviations (ddof 1) are over seeds.",
        "Runs of one seed share their pictures, splits and batch order across methods.",
    ]
    if numbers.selections and len({entry.candidates for entry in numbers.entries}) > 1:
        text.append(
            "Budgets were unequal: some methods had more candidates to choose from than others, which favours them (see How values were chosen)."
        )
    return text + uneven_choices(numbers.study.grid)


def conclusion(numbers: StudyNumbers) -> list[str]:
    """The sentence that a study is run for: who is better or worse than the baseline for sure, and who is so in the mean.

    Returns:
        One sentence or several.
    """
    compared = [entry for entry in numbers.entries if entry.pair and entry.pair.get("difference") is not None]
    if not compared:
        return []
    surely = {verdict: [entry for entry in compared if entry.verdict == verdict] for verdict in ("higher", "lower")}
    text = (
        f"Of {number_of(len(compared), 'comparison')} with {numbers.baseline}, {len(surely['higher'])} {agree(len(surely['higher']), 'is')} significantly higher and "
        f"{len(surely['lower'])} {agree(len(surely['lower']), 'is')} significantly lower after Holm's correction"
    )
    for verdict, entries in surely.items():
        if entries:
            text += f"; {verdict}: {'; '.join(f'{entry.method} ({entry.setting})' for entry in entries[:NAMED])}" + (
                f" and {len(entries) - NAMED} more" if len(entries) > NAMED else ""
            )
    means = {
        method: mean(entry.pair["difference"] for entry in compared if entry.method == method and entry.pair)
        for method in dict.fromkeys(entry.method for entry in compared)
    }
    best = max(means, key=lambda method: means[method])
    settings = len({entry.setting for entry in compared if entry.method == best})
    return [
        f"{text}.",
        f"In the mean over settings {best} is {'highest' if len(means) > 1 else 'the rival'}: {100 * means[best]:+.2f} points in {number_of(settings, 'setting')}.",
    ]


def legend(numbers: StudyNumbers) -> str:
    """How to read the tables of accuracies.

    Returns:
        A paragraph.
    """
    return (
        f"Mean ± standard deviation (seeds). Bold: significantly higher than {escape(numbers.baseline)}; ▼: significantly lower "
        f"(paired t test over seeds, p < {LEVEL} after Holm's correction over all comparisons of this report)."
    )


PAIRS = (
    "Intervals are 95 % t intervals of the paired difference; p (Holm) is corrected over all rows of this table. No interval: fewer than two pairs, or no "
    "spread. In the figure, pale points are seeds, their number stands in brackets, and a filled point is significant after Holm."
)
SELECTED = "Mean validation accuracy over seeds that the final runs do not use; a candidate with a failed run is not chosen."
TEST_SELECTED = "The candidate that is best on the test split itself, as in the papers: optimistic, and no evidence for a method."


def accuracies(numbers: StudyNumbers, regularizer: str) -> Table:
    """Settings by methods, as in the papers.

    Returns:
        Header and rows.
    """
    methods = [method for method in numbers.methods if any(entry.method == method for entry in numbers.of(regularizer))]
    rows = []
    for setting in settings_text(numbers, regularizer):
        entries = [numbers.by_place.get((setting, method)) for method in methods]
        rows.append([setting.task, size_text(setting.size), *(accuracy_text(entry) if entry else "" for entry in entries)])
    return ["task", "size", *methods], rows


def accuracy_text(entry: Entry) -> str:
    """ "78.52 ± 0.41 (5)".

    Returns:
        Such as "78.52 ± 0.41 (5)".
    """
    if entry.mean is None:
        return f"failed ({entry.failed} of {len(entry.outcomes)})" if entry.failed else f"{NONE} ({entry.seeds})"
    spread = f" ± {100 * entry.std:.2f}" if entry.std is not None else ""
    return f"{100 * entry.mean:.2f}{spread} ({entry.seeds})"


def pairs(numbers: StudyNumbers) -> Table:
    """A row for each method and setting but the baseline's.

    Returns:
        Header and rows.
    """
    rows = [[str(entry.setting), entry.method, *pair_texts(entry)] for entry in numbers.entries if entry.method != numbers.baseline]
    return ["setting", "method", "seeds", "difference", "95 % interval", "p", "p (Holm)", "reading"], rows


def pair_texts(entry: Entry) -> list[str]:
    """Number of pairs, difference, interval, p, p after Holm, and a word that the p carries.

    Returns:
        One text a column.
    """
    pair = entry.pair
    if pair is None:
        return ["0", NONE, NONE, NONE, NONE, "no pair of runs"]
    interval = NONE if pair["low"] is None else f"{100 * pair['low']:+.2f} to {100 * pair['high']:+.2f}"
    missing = "" if pair["n"] == len(entry.outcomes) else f" of {len(entry.outcomes)}"
    reading = f"significantly {entry.verdict}" if entry.verdict else "no interval" if pair["low"] is None else "no clear difference"
    return [f"{pair['n']}{missing}", f"{100 * pair['difference']:+.2f}", interval, _p(pair["p"]), _p(pair["p_holm"]), reading]


def over_tasks(overall: Overall) -> Table:
    """A row a method: mean difference, counts, Wilcoxon's test, average rank.

    Returns:
        Header and rows.
    """
    header = [
        "method",
        "tasks",
        "mean difference",
        "tasks above 0",
        "win/tie/loss",
        "Wilcoxon p",
        "p (Holm)",
        "smallest p possible",
        "average rank",
    ]
    rows = [
        [
            row["method"], str(row["tasks"]), f"{100 * row['difference']:+.2f}", f"{row['positive']} of {row['tasks']}",
            f"{row['wins']}/{row['ties']}/{row['losses']}", _p(row["p"]), _p(row["p_holm"]), f"{row['smallest_p']:.3g}",
            f"{overall.ranks[row['method']]:.2f}" if row["method"] in overall.ranks else NONE,
        ] for row in overall.rows
    ]  # fmt: skip
    return header, rows


def over_tasks_notes(overall: Overall) -> list[str]:
    """What the test over tasks can and cannot say.

    Returns:
        Sentences.
    """
    notes = [
        "One difference a task, averaged over its sizes and seeds. Win, tie, loss: settings with a significant gain, no clear difference, a significant loss."
    ]
    if all(row["p"] is None for row in overall.rows):
        notes.append(
            "No Wilcoxon test: with so few tasks its p could not fall below 0.05, whatever the differences (or all differences are zero)."
        )
    if overall.tests:
        p = overall.tests[0]
        notes.append(
            f"Friedman's test over {number_of(overall.ranked, 'task')}: p {_p(p)}"
            + ("." if p < LEVEL else "; so the ranks show no difference.")
        )
        pairs = len(overall.ranks) * (len(overall.ranks) - 1) // 2
        least = min(1.0, pairs * smallest_p(overall.ranked))
        notes.append(
            f"With {number_of(overall.ranked, 'task')} and {number_of(pairs, 'pair')} of methods the smallest p after Holm's correction is {least:.3g}"
            + (
                "."
                if least < LEVEL
                else ", so the diagram of ranks joins all methods, however they rank: more tasks or fewer methods could tell them apart."
            )
        )
    if overall.left_out:
        notes.append(f"Left out of this table, since runs are missing or failed: {'; '.join(overall.left_out)}.")
    return notes


def selections(numbers: StudyNumbers) -> Table:
    """A row for each candidate.

    Returns:
        Header and rows.
    """
    rows = []
    for row in numbers.selections:
        for name, values in (row["scores"] or {}).items():
            whole = [value for value in values if value is not None]
            mean = (
                f"{100 * sum(whole) / len(whole):.2f}"
                if len(whole) == len(values)
                else f"failed ({len(values) - len(whole)} of {len(values)})"
            )
            rows.append([str(row["setting"]), row["method"], name, mean, str(len(whole)), "chosen" if name == row["chosen"] else ""])
        if row["scores"] is None:
            rows.append([str(row["setting"]), row["method"], "not finished", NONE, NONE, ""])
    return ["setting", "method", "values", "validation %", "seeds", "outcome"], rows


def test_selected(numbers: StudyNumbers) -> Table:
    """A row for each method with a grid.

    Returns:
        Header and rows.
    """
    rows = []
    for row in numbers.test_selected:
        spread = f" ± {100 * row['std']:.2f}" if row["std"] is not None else ""
        rows.append([str(row["setting"]), row["method"], row["candidate"], f"{100 * row['mean']:.2f}{spread} ({row['seeds']})"])
    return ["setting", "method", "values", "test %, best on test (seeds)"], rows


def costs(numbers: StudyNumbers) -> Table:
    """A row a method.

    Returns:
        Header and rows.
    """
    rows = [
        [
            row["method"],
            str(row["runs"]),
            duration(row["seconds"]),
            f"{row['ratio']:.2f}" if row["ratio"] else NONE,
            str(row["candidates"]),
            duration(row["selection"]),
        ]
        for row in numbers.costs
    ]
    return ["method", "runs", "training time", f"a run, as a multiple of {numbers.baseline}", "candidates", "time to choose"], rows


def failures(numbers: StudyNumbers) -> Table:
    """A row for each failed run.

    Returns:
        Header and rows.
    """
    return ["setting", "method", "seed", "message"], [
        [str(entry.setting), entry.method, str(outcome.seed), outcome.error] for entry, outcome in numbers.failures
    ]


PUBLISHED = (
    "Published: Tables 1 and 2 of the RIFLE paper (ICML 2020), ResNet-50 on nine tasks, five runs, values chosen on the test set. "
    "Other networks, tasks and ways to choose make the two columns hard to compare."
)


def published_rows(numbers: StudyNumbers) -> Table:
    """Ours and the paper's, and the differences from the baseline of each, for tasks and methods that both have.

    Returns:
        Header and rows.
    """
    rows = []
    for row in beside(numbers):
        entry = row["entry"]
        own = f"{100 * entry.pair['difference']:+.2f}" if entry.pair else NONE
        theirs = NONE if row["difference"] is None or entry.method == numbers.baseline else f"{row['difference']:+.2f}"
        rows.append([str(entry.setting), entry.method, accuracy_text(entry), f"{row['mean']:.2f} ± {row['std']:.2f} (5)", own, theirs])
    return ["setting", "method", "ours (seeds)", "published (runs)", "our difference", "published difference"], rows


def published_differences(numbers: StudyNumbers) -> Table:
    """Mean differences over tasks, ours and the paper's.

    Returns:
        Header and rows.
    """
    rows = [
        [
            row["regularizer"], row["method"], f"{row['published']:+.2f}", f"{row['low']:+.2f} to {row['high']:+.2f}", str(row["tasks"]),
            NONE if row["ours"] is None else f"{row['ours']:+.2f}", str(row["our_tasks"]),
        ] for row in differences(numbers)
    ]  # fmt: skip
    return ["regulariser", "method", "published", "range over tasks", "tasks", "ours", "our tasks"], rows


def settings_text(numbers: StudyNumbers, regularizer: str) -> list[Setting]:
    """The settings of a table.

    Returns:
        Those in which the regulariser was run, in the order of the grid.
    """
    return list(dict.fromkeys(entry.setting for entry in numbers.of(regularizer)))


def _p(value: float | None) -> str:
    return NONE if value is None else p_value(value)
