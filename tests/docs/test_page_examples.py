"""What the pages show can be typed: Python blocks are run on small pictures and networks, commands are parsed, and run where they are cheap."""

import argparse
import ast
import contextlib
import io
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import rekindle
from rekindle.cli import main, parser
from rekindle.method import Method
from rekindle.registry import parse
from tests.docs.pages import PAGES, blocks, commands, title
from tests.docs.test_examples import FEW
from tests.toys import picture_folder

TINY = {"model": "tiny", "image_size": 32, "epochs": 1, "lr": 0.01}
SMALL = {  # What stands on a page, and what is small enough to run in its place.
    'rekindle.fit("photos/"': 'rekindle.fit("photos/", model="tiny", image_size=32, epochs=2, lr=0.01',
    "folds=5": "folds=2",
    '"torchvision:resnet50", classes=200': '"cifar_resnet8", classes=3, weights="none"',
    '"vit_small_patch16_224", classes=10': '"tiny", classes=10',
}
ELSEWHERE = {  # Blocks that have a test of their own, or none, by page.
    "README.md": "tuner.gradients_()",  # test_readme.py
    "CONTRIBUTING.md": "class HeadNorm",  # test_contributing.py
    "docs/loops.md": "tuner",  # test_loops.py, whole
    "docs/your_own_method.md": "class EarlyStrong",  # test_your_own_method.py
    "docs/tasks.md": "prepare(",  # Needs a network connection; tests/data/test_tasks.py prepares miniatures.
}
NOT_RUN = {  # Beginnings of commands that are parsed alone, and why.
    "fit": "trains; test_examples.py asks what each would be cautioned of",
    "demo": "trains; tests/cli/test_demo.py",
    "serve": "does not end; tests/serving",
    "rank": "downloads networks; tests/analysis/test_rank.py",
    "export": "takes long; the block of docs/export.md writes one",
    "study": "takes long; tests/study",
    "board docs/results/board --add": "needs a study; tests/board",
    "analyze gradient-norms": "needs runs that recorded them; tests/analysis",
    "analyze mlp-oracle": "takes minutes; tests/analysis/test_mlp_oracle.py",
    "data prepare": "needs a network connection; tests/data/test_tasks.py",
    "data info": "names no task",
    "data verify": "names no task",
    "data clean": "takes long; tests/analysis/test_cleaning.py",
    "methods NAME": "names no method",
    "methods early_strong": "the reader's own; test_your_own_method.py",
    "test-method": "takes long, or is the reader's own; test_your_own_method.py",
    "soup RUN": "names no run",
    "report latest --explain": "takes long; tests/analysis/test_heat_maps.py",
    "predict RUN": "names no run",
    "COMMAND": "names no command",
}
SHOWN = [(title(page), command) for page in PAGES for command in commands(page)]


@pytest.fixture(scope="module")
def _desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with all that the pages name, as the working directory."""
    place, before = tmp_path_factory.mktemp("desk"), Path.cwd()
    os.chdir(place)
    picture_folder(place / "photos", {"": 10})
    picture_folder(place / "more-photos", {"": 3})
    Image.effect_noise((40, 40), 50).convert("RGB").save("new.jpg")
    for name in ("new", "new-pictures"):
        Path(name).mkdir()
        shutil.copy("new.jpg", name)
    rows = [f"{path},{path.parent.name}" for path in sorted(Path("photos").rglob("*.png"))]
    Path("labels.csv").write_text("\n".join(["path,kind", *rows]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rekindle.report.run_pictures.write_pictures", lambda *_: None)
        patch.setattr("rekindle.report.run_pictures.write_samples", lambda *_: None)
        for name, rate in (("clothes", 0.01), ("clothes-a", 0.02), ("clothes-b", 0.03)):
            rekindle.fit("photos/", name=name, **{**TINY, "lr": rate})
        yield place
    os.chdir(before)


def words_of(command: str) -> list[str]:
    return shlex.split(command)[1:]


def reads(words: list[str]) -> bool:
    """Whether the command's own parser takes the words; `--help` ends it with 0."""
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            parser().parse_args(words)
    except SystemExit as stop:
        return stop.code == 0
    return True


def names() -> set[str]:
    """Every command and subcommand, as typed."""

    def below(top: argparse.ArgumentParser, path: str) -> Iterator[str]:
        for action in top._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, found in action.choices.items():
                    yield f"{path}{name}"
                    yield from below(found, f"{path}{name} ")

    return set(below(parser(), ""))


@pytest.mark.parametrize(("page", "command"), SHOWN, ids=lambda text: str(text).replace("rekindle ", ""))
def test_a_command_is_read(page: str, command: str) -> None:
    words = words_of(command)
    assert words[0] == "COMMAND" or " ".join(words) in names() or reads(words), f"{page} shows: {command}"


def test_a_misspelt_option_is_noticed() -> None:
    assert len(SHOWN) > 100
    assert reads(["fit", "photos/", "--head-lr", "x10"]) and not reads(["fit", "photos/", "--headlr", "x10"])


def cheap() -> list[str]:
    texts = dict.fromkeys(command.removeprefix("rekindle ") for _, command in SHOWN)
    return [text for text in texts if not text.startswith(tuple(NOT_RUN)) and text not in names() - {"methods", "data list", "data cache"}]


def test_every_mark_is_needed() -> None:
    texts = [command.removeprefix("rekindle ") for _, command in SHOWN]
    assert all(any(text.startswith(mark) for text in texts) for mark in NOT_RUN)
    assert len(cheap()) >= 15


@pytest.mark.usefixtures("_desk")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("text", cheap())
def test_a_cheap_command_runs(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words_of(f"rekindle {text}")) == 0
    assert capsys.readouterr().out.strip()


def own_blocks(page: Path) -> list[str]:
    mark = ELSEWHERE.get(title(page))
    return [code for code in blocks(page, "python") if not (mark and mark in code)]


@pytest.mark.usefixtures("_desk")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("page", [page for page in PAGES if own_blocks(page)], ids=title)
def test_a_pages_blocks_run_in_order(page: Path) -> None:
    space: dict[str, Any] = {}
    for code in own_blocks(page):
        judged = code
        for old, new in SMALL.items():
            code = code.replace(old, new)
        exec(code, space)  # noqa: S102
        for method in methods_given(judged, space):
            assert cautions(method) == [], f"{title(page)} leads into a run that rekindle cautions against"


def test_every_elsewhere_is_there() -> None:
    for page in PAGES:
        if mark := ELSEWHERE.get(title(page)):
            assert any(mark in code for code in blocks(page, "python"))


def methods_given(code: str, space: dict[str, Any]) -> Iterator[list[Method]]:
    """The methods of every `rekindle.fit(..., method=...)` in a block that has been run."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "rekindle.fit":
            for keyword in node.keywords:
                if keyword.arg == "method":
                    given = eval(ast.unparse(keyword.value), space)
                    yield parse(given) if isinstance(given, str) else list(given)


def cautions(given: list[Method]) -> list[str]:
    """What a run of the usual length on a small set would be told of its methods."""
    from rekindle.training.defaults import automatic_epochs

    source, model = rekindle.load("tiny", classes=3, weights="none")
    epochs, steps = automatic_epochs(FEW, 32), -(-FEW // 32)
    return rekindle.Tuner(model, given, source=source, epochs=epochs, steps_per_epoch=steps).warnings()


def test_a_block_that_leads_astray_is_noticed() -> None:
    [given] = methods_given('rekindle.fit("photos/", method="rifle(periods=20)")', {})
    assert "steps after its last fresh draw" in cautions(given)[0]
