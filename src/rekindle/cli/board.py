"""The command `rekindle board`."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rekindle.cli.output import add_command, add_json, say, table
from rekindle.cli.run_names import find_run

OK = 0
FOLDER = "board"


def register(commands: Any) -> None:
    """Add the command."""
    command = add_command(
        commands, "board", "hold methods against plain fine-tuning, over all runs that anybody has added", "rekindle board --add study-clothes --by 'A. Name'",
        "A board is a folder with a JSON file a run; results join it by adding files. board.md and board.html are written beside them.",
    )  # fmt: skip
    command.add_argument("board", nargs="?", default=FOLDER, help=f"folder of the board (default: {FOLDER})")
    command.add_argument(
        "--add", nargs="+", metavar="RUN", default=[], help="finished runs, or folders of them such as a study's, to add first"
    )
    command.add_argument("--by", default="", metavar="NAME", help="who contributes them")
    add_json(command)
    command.set_defaults(act=_board)


def _board(options: argparse.Namespace) -> int:
    from rekindle.board.numbers import board_of
    from rekindle.board.page import WORDS, conclusion, origin, overall_table, write_board
    from rekindle.board.row import add, read_rows

    folder = Path(options.board)
    if options.add:
        add([find_run(name) for name in options.add], folder, options.by, lambda text: print(text, file=sys.stderr))
    board = board_of(read_rows(folder))
    pages = write_board(folder, board)
    if options.json:
        print(json.dumps({"runs": len(board.rows), "overall": board.overall, "notes": board.notes, "pages": [str(path) for path in pages]}))
        return OK
    if board.overall:
        table(*overall_table(board), words=WORDS)
    for text in (conclusion(board), origin(board), *board.notes):
        say(text)
    print(f"See {pages[-1]}.")
    return OK
