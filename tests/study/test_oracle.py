"""The oracle experiment through `rekindle study run`."""

import json
from pathlib import Path

import pytest

from rekindle.cli import main
from rekindle.errors import UserError
from rekindle.oracle.study import load_oracle

STUDIES = Path(__file__).resolve().parents[2] / "studies"
SMALL = "name: small\noracle: {seeds: 2, inputs: 6, hidden: 4, samples: 40, epochs: 4, periods: 2, rates: [0.01, 0.1], noises: [0.1]}\n"


def test_the_papers_experiment() -> None:
    study = load_oracle(STUDIES / "mlp_oracle.yaml")
    assert study is not None and study.cells == 3 * 7 * 2 and study.settings.seeds == 10
    assert load_oracle(STUDIES / "small_study.yaml") is None


def test_it_runs_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "grid.yaml").write_text(SMALL)
    command = ["study", "run", str(tmp_path / "grid.yaml"), "--out", str(tmp_path / "out")]
    assert main([*command, "--dry-run"]) == 0 and not (tmp_path / "out").exists()
    assert main(command) == 0
    written = (tmp_path / "out" / "oracle.csv").read_bytes()
    assert written.count(b"\n") > 2 * 3 * 2
    capsys.readouterr()
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"cells": 6, "seeds": 2, "done": True, "folder": str(tmp_path / "out")}
    (tmp_path / "grid.yaml").write_text(SMALL.replace("seeds: 2", "seeds: 3"))
    assert main(command) == 0 and (tmp_path / "out" / "oracle.csv").read_bytes() != written


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("oracle: {sed: 3}", "oracle must be a mapping with keys among seeds, inputs"),
        ("oracle: {seeds: many}", "oracle.seeds must be like 10, found 'many'"),
        ("oracle: {rates: 0.1}", r"oracle.rates must be like \[0.005, .*\], found 0.1"),
        ("oracle: {}\ntasks: {}", "has the keys name and oracle, found 'tasks'"),
        ("oracle: {seeds: 0}", "--seeds must be a whole number of at least 1"),
    ],
)
def test_bad_files_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_oracle(tmp_path / "grid.yaml")


def test_options_that_do_nothing_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "grid.yaml").write_text(SMALL)
    assert main(["study", "run", str(tmp_path / "grid.yaml"), "--jobs", "2"]) == 2
    assert "--jobs does nothing in an oracle study" in capsys.readouterr().err
