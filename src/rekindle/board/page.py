"""The board as tables: Markdown, and one page that opens offline."""

from pathlib import Path

from rekindle.board.numbers import PLAIN, Board, Standing
from rekindle.errors import agree, number_of
from rekindle.files import embed, write_atomic
from rekindle.report.colors import method_styles
from rekindle.report.figures import RANKS_NEED, rank_diagram, themed_svg
from rekindle.report.format import escape, markdown_table, p_value
from rekindle.report.statistics import LEVEL
from rekindle.report.template import render

NONE = "–"
WORDS = ("method", "setting", "candidate")
OVERALL = (
    "Points above plain fine-tuning at its best, one difference a task, with the 95 % t interval over tasks. Wins, ties and losses count "
    "settings, by paired t tests over seeds after Holm's correction over the whole board. p is Wilcoxon's over tasks, corrected likewise; "
    "it needs six tasks."
)
CHOSEN = "Each method is shown at its best candidate on validation; the test split chose nothing. Accuracy is on the test split."
Table = tuple[list[str], list[list[str]]]


def write_board(folder: Path, board: Board) -> list[Path]:
    """Write board.md and board.html into the folder of rows.

    Returns:
        The two files.
    """
    pages = {"board.md": markdown(board), "board.html": html(board)}
    for name, text in pages.items():
        write_atomic(folder / name, text)
    return [folder / name for name in pages]


def conclusion(board: Board) -> str:
    """The sentence that a board is read for.

    Returns:
        A sentence.
    """
    if not board.overall:
        return "Nothing can be compared yet: plain fine-tuning and another method have to meet in a setting with the same seeds."
    best = board.overall[0]
    surely = [row["method"] for row in board.overall if row["p_holm"] is not None and row["p_holm"] < LEVEL and row["difference"] > 0]
    wins, losses = (sum(row[name] for row in board.overall) for name in ("wins", "losses"))
    settled = (
        f"{', '.join(surely)} {agree(len(surely), 'is')} significantly above plain fine-tuning over tasks"
        if surely
        else "No method is significantly above plain fine-tuning over tasks"
    )
    settings = sum(row["settings"] for row in board.overall)
    return (
        f"{settled}; of {number_of(settings, 'comparison')} in single settings {wins} {agree(wins, 'is')} won and {losses} lost "
        f"for sure. Highest in the mean is {best['method']} with {100 * best['difference']:+.1f} points over {number_of(best['tasks'], 'task')}."
    )


def overall_table(board: Board) -> Table:
    """A line for each method, the highest first.

    Returns:
        Title, header and rows.
    """
    header = ["method", "tasks", "settings", "difference", "95 % interval", "wins/ties/losses", "p (Holm)", "rank", "candidates"]
    rows = [
        [
            row["method"], str(row["tasks"]), str(row["settings"]), f"{100 * row['difference']:+.1f}", _interval(row["low"], row["high"]),
            f"{row['wins']}/{row['ties']}/{row['losses']}", NONE if row["p_holm"] is None else p_value(row["p_holm"]),
            f"{board.ranks[row['method']]:.1f}" if row["method"] in board.ranks else NONE, str(row["candidates"]),
        ] for row in board.overall
    ]  # fmt: skip
    return header, rows


def settings_table(board: Board) -> Table:
    """A line for each method in each setting, the highest first.

    Returns:
        Title, header and rows.
    """
    header = ["setting", "method", "accuracy %", "seeds", "difference", "95 % interval", "p (Holm)", "candidates"]
    return header, [_line(standing) for standing in board.standings]


def _line(standing: Standing) -> list[str]:
    pair = standing.pair or {}
    spread = "" if standing.std is None else f" ± {100 * standing.std:.1f}"
    p = pair.get("p_holm")
    mark = {"higher": " ▲", "lower": " ▼"}.get(standing.verdict, "")
    return [
        str(standing.setting), standing.method, f"{100 * standing.mean:.1f}{spread}{mark}", str(len(standing.tests)),
        f"{100 * pair['difference']:+.1f}" if pair else NONE, _interval(*(pair.get("interval") or (None, None))),
        NONE if p is None else p_value(p), str(standing.candidates),
    ]  # fmt: skip


def origin(board: Board) -> str:
    """Where the rows come from.

    Returns:
        A sentence or several.
    """
    people = sorted({row["by"] for row in board.rows if row["by"]})
    versions = sorted({row["packages"].get("rekindle", "?") for row in board.rows})
    finals = sum("test" in row for row in board.rows)
    by = f"; contributed by {', '.join(people)}" if people else ""
    return (
        f"{number_of(len(board.rows), 'run')}, {finals} of which {agree(finals, 'has')} read a test split; made with rekindle "
        f"{', '.join(versions)}{by}. Plain fine-tuning is {PLAIN}."
    )


def markdown(board: Board) -> str:
    """The whole board.

    Returns:
        Text.
    """
    parts = [
        "# The board", escape(conclusion(board)), escape(origin(board)), "## Over tasks", _markdown(overall_table(board)), OVERALL,
        "## By setting", _markdown(settings_table(board)), CHOSEN, *(escape(note) for note in board.notes),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def html(board: Board) -> str:
    """The page.

    Returns:
        One page that needs no other file.
    """
    ranks, lacking = _ranks(board)
    return render(
        "board/board.html.j2",
        {
            "conclusion": conclusion(board), "origin": origin(board), "notes": [*board.notes, *lacking], "words": WORDS, "ranks": ranks,
            "tables": [("Over tasks", OVERALL, *overall_table(board)), ("By setting", CHOSEN, *settings_table(board))],
        },
    )  # fmt: skip


def _ranks(board: Board) -> tuple[str | None, list[str]]:
    """The diagram of critical differences as a picture, where the tasks are enough for one; and what is lacking to draw it."""
    if not board.tests:
        return None, []
    styles = method_styles([method.partition(",")[0] for method in board.ranks])
    shades = {method: style[0] for method, style in zip(board.ranks, styles, strict=True)}
    try:
        figure = rank_diagram(board.ranks, board.tests[1], shades, number_of(len(board.ranked), "task"))
    except ImportError:
        return None, [RANKS_NEED]
    return embed(themed_svg(figure).encode(), "svg+xml"), []


def _interval(low: float | None, high: float | None) -> str:
    return NONE if low is None or high is None else f"{100 * low:+.1f} to {100 * high:+.1f}"


def _markdown(table: Table) -> str:
    header, rows = table
    return markdown_table(header, ([escape(cell) for cell in row] for row in rows), WORDS)
