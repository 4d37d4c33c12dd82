"""Every command that a sentence of the code tells a reader to type exists, with the options that it names."""

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import rekindle
from rekindle.cli import parser

SOURCE = Path(rekindle.__file__).parent
TOLD = re.compile(r"(?<![\w/.-])rekindle ((?:[a-z]+(?:-[a-z]+)*)(?: [^\n;`'\"()]*)?)")
# Words that follow the library's name where it is not the command.
PROSE = {"as", "is", "it", "itself", "keeps", "reads", "than", "that", "worked", "wrote"}


def texts(path: Path) -> Iterator[str]:
    """The string constants of a file, with WORD for what f-strings fill in."""
    tree = ast.parse(path.read_text("utf-8"))
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node) if part is not node}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "WORD" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.value


def wrong_with(command: str) -> str:
    """Why the words after `rekindle` are no command, or "": its name, the name of its action, its options."""
    words, found = command.split(), parser()
    while words and (actions := [action for action in found._actions if isinstance(action, argparse._SubParsersAction)]):
        name = words.pop(0).rstrip(".,:")
        if name not in actions[0].choices:
            return f"there is no {name!r}"
        found = actions[0].choices[name]
    known = {option for action in found._actions for option in action.option_strings}
    unknown = [word.rstrip(".,:]") for word in words if word.startswith("--")]
    unknown = [word.partition("=")[0] for word in unknown if word.partition("=")[0] not in known]
    return f"{unknown[0]} is no option" if unknown else ""


def said() -> list[tuple[str, str]]:
    """(file, words) of each."""
    found = {
        (str(path.relative_to(SOURCE)), match[1].strip())
        for path in sorted(SOURCE.rglob("*.py"))
        for text in texts(path)
        for match in TOLD.finditer(text)
    }
    return sorted((name, words) for name, words in found if words.split()[0].rstrip(".,:") not in PROSE)


def test_commands_in_sentences_can_be_typed() -> None:
    mistakes = [f"{name}: rekindle {words}: {why}" for name, words in said() if (why := wrong_with(words))]
    assert len(said()) > 60 and not mistakes, "\n".join(mistakes)


@pytest.mark.parametrize("words", ["board add RUN", "fit photos/ --epoch 3", "study begin x.yaml", "nothing"])
def test_a_wrong_command_would_be_found(words: str) -> None:
    if words.startswith("board"):  # A positional takes any word, so what gives it away is the option.
        words += " --to board"
    assert wrong_with(words)
