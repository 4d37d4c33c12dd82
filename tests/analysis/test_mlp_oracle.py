"""The oracle experiment: its parts by hand, its batching against networks trained alone, its tables against scipy."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats

import rekindle
from rekindle.cli import main
from rekindle.method import Source
from rekindle.oracle.experiment import METHODS, Layers, Networks, _samples, _teachers, run_oracle, train, transport
from rekindle.oracle.settings import OracleSettings
from rekindle.oracle.tables import chosen_rate, comparisons, page, write_oracle

SMALL = OracleSettings(seeds=3, inputs=6, hidden=4, samples=20, epochs=4, batch_size=8, periods=2, rates=(0.02, 0.1), noises=(0.1, 0.01))


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return run_oracle(SMALL)


def test_an_oracle_by_hand() -> None:
    net = Networks(1, 2, 2)
    with torch.no_grad():
        net.hidden.weight[0] = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
        net.head.weight[0, :, 0] = torch.tensor([2.0, 1.0])
    assert net(torch.tensor([[[3.0, -4.0]]])).item() == 10


def test_transport_by_hand() -> None:
    points = torch.randn(7, 2, generator=torch.Generator().manual_seed(0))
    assert transport(points, points[torch.randperm(7)]) == pytest.approx(0, abs=1e-12)
    assert transport(points, points + 0.1) == pytest.approx(0.02, abs=1e-6)
    assert transport(torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [0.0]])) == pytest.approx((0 + 4) / 2)


class AloneHead(Layers):
    """The head of one of several networks: it draws for all of them and keeps its own, as the batch does."""

    def __init__(self, count: int, which: int, inputs: int) -> None:
        self.count, self.which = count, which
        super().__init__(1, inputs, 1)

    def reset_parameters(self) -> None:
        whole = torch.empty(self.count, *self.weight.shape[1:], dtype=self.weight.dtype)
        bound = self.in_features**-0.5
        with torch.no_grad():
            self.weight.copy_(whole.uniform_(-bound, bound)[self.which])


@pytest.mark.parametrize("method", METHODS)
def test_networks_side_by_side_are_networks_alone(method: str) -> None:
    """Three in one tuner, and one tuner each: the same weights, so the batch runs the real methods on every seed."""
    settings = SMALL
    with torch.random.fork_rng():
        torch.manual_seed(0)
        batch = Networks(3, 6, 4).double()
    start = {name: value.clone() for name, value in batch.state_dict().items()}
    x, y = (value.double() for value in _samples(settings, _teachers(settings)[0], "train", 0.1))
    train(batch, METHODS[method](settings), x, y, 0.05, settings, Source(batch))
    assert not torch.equal(batch.hidden.weight[0], start["hidden.weight"][0])
    for seed in range(3):
        alone = Networks(1, 6, 4)
        alone.head = AloneHead(3, seed, 4)
        alone = alone.double()
        alone.load_state_dict({name: value[seed : seed + 1] for name, value in start.items()})
        train(alone, METHODS[method](settings), x[seed : seed + 1], y[seed : seed + 1], 0.05, settings, Source(alone), [seed])
        for name, value in alone.state_dict().items():
            assert torch.allclose(value[0], batch.state_dict()[name][seed], atol=1e-12, rtol=0), (seed, name)


def test_methods_differ_only_where_they_should() -> None:
    """RIFLE-A is RIFLE without its cycle; with one period both are L2."""
    one = OracleSettings(**{**vars(SMALL), "periods": 1, "rates": (0.05,), "noises": (0.1,), "seeds": 1})
    errors = {row["method"]: row["test_mse"] for row in run_oracle(one) if row["method"] != "source"}
    assert errors["RIFLE"] == pytest.approx(errors["L2"], rel=1e-6) and errors["RIFLE-A"] == pytest.approx(errors["L2"], rel=1e-6)


def test_every_cell_is_there_and_differs(rows: list[dict[str, Any]]) -> None:
    keys = [(row["noise"], row["rate"], row["method"], row["seed"]) for row in rows]
    assert len(set(keys)) == len(keys) == 2 * 3 * (1 + 2 * 3)
    errors = [row["test_mse"] for row in rows if row["method"] != "source"]
    assert len(set(errors)) == len(errors)
    assert run_oracle(SMALL) == rows, "the same numbers again"


def test_more_seeds_leave_the_first_ones_alone(rows: list[dict[str, Any]]) -> None:
    fewer = run_oracle(OracleSettings(**{**vars(SMALL), "seeds": 2}))
    same = [row for row in rows if row["seed"] < 2]
    for mine, theirs in zip(fewer, same, strict=True):
        assert mine.keys() == theirs.keys()
        assert all(mine[key] == (pytest.approx(theirs[key], rel=1e-4) if isinstance(theirs[key], float) else theirs[key]) for key in mine)


def test_fine_tuning_learns_the_target_and_less_noise_helps() -> None:
    settings = OracleSettings(seeds=2, inputs=8, hidden=6, samples=200, epochs=20, periods=2, rates=(0.05,), noises=(0.3, 0.01))
    found = [row for row in run_oracle(settings) if row["method"] == "L2"]
    teacher = _teachers(settings)[1]
    variance = float(_samples(settings, teacher, "test", 0.0)[1].var())
    noisy, clean = ([row["test_mse"] for row in found if row["noise"] == noise] for noise in settings.noises)
    assert max(clean) < 0.3 * variance
    assert all(b < a for a, b in zip(noisy, clean, strict=True))


def test_labels_are_the_teachers_plus_noise_of_the_asked_size() -> None:
    settings = OracleSettings(seeds=2)
    first, second = _teachers(settings)
    assert first.hidden is second.hidden and not torch.equal(first.head.weight, second.head.weight)
    x, clean = _samples(settings, second, "test", 0.0)
    same, noisy = _samples(settings, second, "test", 0.1)
    assert torch.equal(x, same) and torch.equal(clean, second(x))
    assert float((noisy - clean).std()) == pytest.approx(0.1, rel=0.05)
    assert not torch.equal(x[0], x[1])
    assert not torch.equal(_samples(settings, second, "val", 0.0)[0], x)


def test_tables_are_paired_by_seed(rows: list[dict[str, Any]]) -> None:
    found = comparisons(rows, "test_mse")
    assert [(row["noise"], row["rate"], row["method"]) for row in found] == [
        (noise, rate, name) for noise in (0.1, 0.01) for name in ("RIFLE", "RIFLE-A") for rate in (0.02, 0.1)
    ]

    def pick(name: str) -> list[float]:
        return [row["test_mse"] for row in rows if (row["noise"], row["rate"], row["method"]) == (0.01, 0.1, name)]

    row = next(row for row in found if (row["noise"], row["rate"], row["method"]) == (0.01, 0.1, "RIFLE"))
    assert row["p"] == pytest.approx(stats.ttest_rel(pick("RIFLE"), pick("L2")).pvalue)
    assert row["wins"] == sum(b < a for a, b in zip(pick("L2"), pick("RIFLE"), strict=True))
    assert all(row["holm"] >= row["p"] for row in found)


def test_the_rate_is_chosen_on_validation_not_on_test() -> None:
    cells = {0.1: [{"val_mse": 1.0, "test_mse": 9.0}], 0.2: [{"val_mse": 2.0, "test_mse": 1.0}], 0.5: [{"val_mse": None, "test_mse": None}]}
    assert chosen_rate(cells) == 0.1  # type: ignore[arg-type]


def test_divergence_is_shown_not_hidden(tmp_path: Path) -> None:
    settings = OracleSettings(**{**vars(SMALL), "rates": (0.02, 90.0), "noises": (0.1,)})
    found = run_oracle(settings)
    assert all(row["test_mse"] is None and row["transport_rows"] is None for row in found if row["rate"] == 90.0)
    text = page(found, settings)
    assert text.count("| 90 | RIFLE | diverged") == 3
    assert [path.name for path in write_oracle(tmp_path, found, settings)] == ["oracle.md", "oracle.csv", "oracle.png"]
    lost = page([row for row in run_oracle(OracleSettings(**{**vars(settings), "rates": (90.0,)}))], settings)
    assert lost.count("diverged") == 12


def test_the_command_writes_every_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "--seeds 2 --inputs 6 --hidden 4 --samples 20 --epochs 4 --batch-size 8 --periods 2 --rates 0.02,0.1 --noises 0.1"
    assert main(["analyze", "mlp-oracle", *arguments.split(), "--out", str(tmp_path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    with open(tmp_path / "oracle.csv", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(printed) == 2 * (1 + 2 * 3)
    assert float(lines[-1]["test_mse"]) == pytest.approx(printed[-1]["test_mse"])
    text = (tmp_path / "oracle.md").read_text()
    assert f"`rekindle analyze mlp-oracle {arguments}`" in text
    assert (tmp_path / "oracle.png").stat().st_size > 10_000
    assert main(["analyze", "mlp-oracle", *arguments.split(), "--out", str(tmp_path)]) == 0
    assert "oracle.md" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [("--rates 0.1,x", "--rates takes numbers"), ("--rates 0.1,0.1", "different numbers"), ("--seeds 0", "--seeds must be a whole number of at least 1"),
     ("--epochs 3", "at least the 4 periods"), ("--noises -1", "above 0")],
)  # fmt: skip
def test_bad_settings_are_one_sentence(arguments: str, wanted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", "mlp-oracle", *arguments.replace(" -1", "=-1").split(), "--out", str(tmp_path)]) == 2
    assert wanted in capsys.readouterr().err


def test_without_pot_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(rekindle.UserError, match=r"rekindle\[study\]"):
        transport(torch.zeros(2, 1), torch.zeros(2, 1))
