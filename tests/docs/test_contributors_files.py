"""The files for contributors, as far as a machine without GitHub or Docker can judge them."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
GITHUB = sorted((ROOT / ".github").rglob("*.yml"))
FORMS = [path for path in GITHUB if path.parent.name == "ISSUE_TEMPLATE" and path.stem != "config"]
FLOWS = [path for path in GITHUB if path.parent.name == "workflows"]


def flow(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text("utf-8"))
    return found


def targets() -> set[str]:
    return set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_is_one(path: Path) -> None:
    form = yaml.safe_load(path.read_text("utf-8"))
    assert {"name", "description", "body"} <= set(form)
    for part in form["body"]:
        assert part["type"] in ("textarea", "input", "checkboxes") and part["attributes"]["label"]
    ids = [part["id"] for part in form["body"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("path", FLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_one(path: Path) -> None:
    text = path.read_text("utf-8")
    found = yaml.safe_load(text)
    assert found["permissions"] == {"contents": "read"}  # A job that needs more says so itself.
    for job in found["jobs"].values():
        assert job["runs-on"] and job["steps"]
        assert all(("uses" in step) != ("run" in step) for step in job["steps"])
        assert set(job.get("needs", "").split()) <= set(found["jobs"])
    assert set(re.findall(r"\bmake (\w[\w-]*)", text)) <= targets()


def test_every_python_that_is_claimed_is_tested() -> None:
    claimed = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    matrix = flow("ci")["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"] == claimed
    assert PROJECT["requires-python"] == f">={claimed[0]}"
    assert {row["os"].partition("-")[0] for row in matrix["include"]} == {"ubuntu", "macos", "windows"}
    assert any(row["dependencies"] == "lowest" and row["python"] == claimed[0] for row in matrix["include"])


def test_publishing_stores_no_password() -> None:
    publish = flow("release")["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"} and publish["needs"] == "build"
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text("utf-8")


def test_the_image_installs_extras_that_exist_and_copies_what_is_there() -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    [extras] = re.findall(r"'/src\[([\w,]+)\]'", text)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    copied = [name for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for name in line.split()]
    allowed = (ROOT / ".dockerignore").read_text("utf-8").split()
    assert copied and all((ROOT / name).exists() and f"!{name}" in allowed for name in copied)
    assert PROJECT["readme"] in copied and set(PROJECT["license-files"]) <= set(copied)  # Else the build fails.
    assert "USER rekindle" in text


def test_hooks_are_those_of_make_lint() -> None:
    [repo] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    entries = " ".join(hook["entry"] for hook in repo["hooks"])
    assert all(f".venv/bin/{name}" in entries for name in ("ruff check", "ruff format", "mypy"))


def test_commands_of_the_contributors_page_exist() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert set(re.findall(r"\bmake ([a-z][\w-]*)", page)) - {"lint", "test"} <= targets()
    assert {"test", "lint", "docs", "demo"} <= targets()


def test_metadata_agrees_with_the_citation() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in PROJECT["authors"]]
