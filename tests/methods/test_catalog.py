"""Methods are found by being there: in the library, in other packages, and in the caller's own program."""

import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

import rekindle
from rekindle import Method, UserError, registry
from rekindle import methods as package
from rekindle.cli import main
from rekindle.method import Direction
from rekindle.methods._catalog import LIBRARY, card, library
from rekindle.spec import NonNegative, wanted
from tests.toys import picture_folder

KINDS: dict[str, type[Method] | type[Direction]] = {**registry.methods(), **registry.directions()}
STUB = Path(package.__file__ or "").with_suffix(".pyi")
PLUGIN = '''
from dataclasses import dataclass
from typing import ClassVar
from rekindle import Method
from rekindle.spec import NonNegative

@dataclass
class Fade(Method):
    """Fade the head out.

    Args:
        alpha: How much.
    """
    alpha: NonNegative = 0.5
    paper: ClassVar[str] = "nobody, 2026"
'''
POINTS = """[rekindle.methods]
fade = plugged_in:Fade
gone = plugged_in:Gone
no_module = not_there_at_all:Thing
stolen = rekindle.methods.penalties.l2:L2
"""


def test_what_is_read_is_what_is_run() -> None:
    """The list is read from files, never run; the classes say the same of themselves."""
    entries = library()
    assert entries.keys() == KINDS.keys()
    for name, kind in KINDS.items():
        fields = {field.name: field.default for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
        assert {option: told.default for option, told in entries[name].options.items()} == fields
        hints = rekindle.spec.hints(kind)  # type: ignore[attr-defined]
        assert {option: told.words for option, told in entries[name].options.items()} == {key: wanted(hint) for key, hint in hints.items()}
        assert (entries[name].paper, entries[name].kind, entries[name].package) == (kind.paper, kind.__name__, LIBRARY)


def test_every_class_is_importable_by_its_name() -> None:
    for name, kind in KINDS.items():
        assert getattr(package, kind.__name__) is kind, name
    assert set(dir(package)) == {kind.__name__ for kind in KINDS.values()}
    with pytest.raises(AttributeError, match="Nope"):
        package.Nope  # noqa: B018


def test_editors_complete_them() -> None:
    """Editors read the stub; add the line that is missing there."""
    lines = {f"from .{entry.module.removeprefix('rekindle.methods.')} import {entry.kind}" for entry in library().values()}
    written = STUB.read_text("utf-8").splitlines()
    assert {line for line in written if line.startswith("from ")} == lines
    assert {line.strip(' ",') for line in written if line.startswith("    ")} == {entry.kind for entry in library().values()}


# Each command's exit status, what it prints and what it says, from a process that finds the packages of a folder; drawing is looked at elsewhere.
COMMANDS = """
import contextlib, io, json, sys
sys.path.insert(0, sys.argv[1])
from rekindle.cli import main
from rekindle.report import run_pictures
run_pictures.write_pictures = run_pictures.write_samples = lambda *_: None
found = []
for words in json.loads(sys.argv[2]):
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(io.StringIO()) as said:
        status = main(words)
    found.append([status, printed.getvalue(), said.getvalue()])
print(json.dumps(found))
"""
Answers = list[tuple[int, str, str]]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """What commands answer where a package brings a method, three are broken, and there are no more."""
    site, root = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("training")
    (site / "plugged_in.py").write_text(PLUGIN)
    info = site / "plugged_in-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-in\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    fit = f"fit {picture_folder(root / 'data', {'train': 4, 'val': 2})} --model tiny --weights none --image-size 16 --epochs 1 --lr 0.01 --batch-size 4"
    recipes = ("l2+fade(alpha=0.1)", "fade(alpha=-1)", "gone")
    commands = [
        ["methods"],
        ["methods", "fade"],
        ["test-method", "fade"],
        *([*fit.split(), "--out", str(root), "--method", recipe] for recipe in recipes),
    ]
    done = subprocess.run([sys.executable, "-c", COMMANDS, str(site), json.dumps(commands)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: Answers = json.loads(done.stdout)
    return found


def test_methods_of_other_packages_are_listed_and_broken_ones_named(answers: Answers) -> None:
    [(status, listed, said), (status_of_one, one, _), (_, tested, _), *_] = answers
    assert status == status_of_one == 0
    assert "plugged-in" in listed and "fade(alpha=0.5)" in listed and "nobody, 2026" in listed
    assert [line.split()[1] for line in said.splitlines()] == ["gone", "no_module", "stolen"]
    assert all("plugged-in cannot be used" in line for line in said.splitlines())
    assert "`alpha=0.5` (a finite number of at least 0): How much." in one
    assert "ok       Its repr and its recipe give an equal object" in tested


def test_methods_of_other_packages_train(answers: Answers) -> None:
    [trained, wrong, gone] = answers[3:]
    assert [trained[0], wrong[0], gone[0]] == [0, 2, 2], trained
    assert "fade: alpha must be a finite number of at least 0, found -1" in wrong[2].splitlines()[-1]
    assert "gone of plugged-in cannot be used" in gone[2].splitlines()[-1]


@dataclass
class HomeMade(Method):
    """A method of the caller's own program."""

    alpha: NonNegative = 0.1

    paper: ClassVar[str] = "nobody"


def test_fit_takes_objects_of_classes_of_ones_own(tmp_path: Path) -> None:
    data = picture_folder(tmp_path / "data", {"train": 4, "val": 2})
    fast = {"model": "cifar_resnet8", "weights": "none", "epochs": 2, "lr": 0.01, "batch_size": 4, "precision": "32"}
    method = [HomeMade(alpha=0.2), rekindle.Rifle(periods=1)]
    run = rekindle.fit(data, method=method, direction=rekindle.PlainSum(), out=tmp_path, **fast)  # type: ignore[arg-type]
    assert run.result["method"] == "home_made(alpha=0.2)+rifle(periods=1)"
    assert run.predict(next((data / "val").rglob("*.png")))[0].classes
    assert rekindle.fit(resume=run.folder).result == run.result
    assert not hasattr(method[1], "_modules")  # The caller's own objects are left as they were.
    with pytest.raises(UserError, match=r"\[Rifle\(periods=4\)\]"):
        rekindle.fit(data, method=[HomeMade], out=tmp_path)  # type: ignore[list-item]


def test_a_name_that_is_none_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "riffle"]) == 2
    assert "did you mean rifle" in capsys.readouterr().err
    with pytest.raises(UserError, match="did you mean rifle"):
        card("riffle", library())
