"""Whether two finished runs are equal bit for bit, apart from what stands under `timing`."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file


def without_timing(value: Any) -> Any:
    """A JSON value without its `timing` at any depth."""
    if isinstance(value, dict):
        return {key: without_timing(item) for key, item in value.items() if key != "timing"}
    return [without_timing(item) for item in value] if isinstance(value, list) else value


def assert_equal_runs(one: Path, other: Path, epochs: int) -> None:
    """Compare weights, every epoch's figures, results and predictions of two run folders."""
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    for key in first:
        assert torch.equal(first[key], second[key]), key
    lines = [[without_timing(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()] for folder in (one, other)]
    assert len(lines[0]) == epochs
    assert lines[0] == lines[1]
    assert without_timing(json.loads((one / "result.json").read_text())) == without_timing(json.loads((other / "result.json").read_text()))
    assert (one / "predictions.csv").read_text() == (other / "predictions.csv").read_text()
