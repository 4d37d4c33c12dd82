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


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages, with one that brings a method, three broken ones, and no more."""
    (tmp_path / "plugged_in.py").write_text(PLUGIN)
    info = tmp_path / "plugged_in-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-in\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    return tmp_path


def commands(site: Path, *commands: list[str]) -> tuple[list[int], str, str]:
    """What commands return one after the other in a process that finds the packages, and all that it prints and says."""
    code = f"import sys; sys.path.insert(0, {str(site)!r}); from rekindle.cli import main; print([main(one) for one in {list(commands)}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stdout, done.stderr


def test_methods_of_other_packages_are_listed_and_broken_ones_named(site: Path) -> None:
    statuses, printed, said = commands(site, ["methods"], ["methods", "fade"])
    assert statuses == [0, 0]
    assert "plugged-in" in printed and "fade(alpha=0.5)" in printed and "nobody, 2026" in printed
    assert [line.split()[1] for line in said.splitlines()[:3]] == ["gone", "no_module", "stolen"]
    assert all("plugged-in cannot be used" in line for line in said.splitlines())
    assert "`alpha=0.5` (a finite number of at least 0): How much." in printed


def test_methods_of_other_packages_train(site: Path, tmp_path: Path) -> None:
    picture_folder(tmp_path / "data", {"train": 4, "val": 2})
    fast = [
        "--model",
        "cifar_resnet8",
        "--weights",
        "none",
        "--epochs",
        "1",
        "--lr",
        "0.01",
        "--batch-size",
        "4",
        "--out",
        str(tmp_path / "runs"),
    ]
    recipes = ("l2+fade(alpha=0.1)", "fade(alpha=-1)", "gone")
    statuses, _, said = commands(site, *(["fit", str(tmp_path / "data"), *fast, "--method", recipe] for recipe in recipes))
    assert statuses == [0, 2, 2], said
    assert "fade: alpha must be a finite number of at least 0, found -1" in said.splitlines()[-2]
    assert "gone of plugged-in cannot be used" in said.splitlines()[-1]


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
