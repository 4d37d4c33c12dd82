"""`rekindle soup`: the mean of finished runs, by hand, and as a run like any other."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rekindle
from rekindle import Run, UserError
from rekindle.cli import main
from rekindle.data.samples import Samples
from rekindle.errors import Busy
from rekindle.fitting.run_lock import run_lock
from rekindle.models.saving import read_model
from rekindle.report.analyses import analyze
from rekindle.report.compare import compare
from rekindle.report.redraw import redraw
from rekindle.training.mixing import differing_norms, first_views, mean_weights, reestimate_
from tests.toys import TINY_RUN, picture_folder, toy

DRAWS = True


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("data"), {"train": 6, "val": 4, "test": 2})


@pytest.fixture(scope="module")
def runs(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two with frozen statistics of BatchNorm, one with its own, one of other source weights."""
    out = tmp_path_factory.mktemp("runs")
    made = [rekindle.fit(folder, out=out, name=f"frozen{seed}", seed=seed, batchnorm="frozen", **TINY_RUN) for seed in (0, 1)]
    made.append(rekindle.fit(folder, out=out, name="batch", seed=2, batchnorm="batch", keep="last", **TINY_RUN))
    made.append(rekindle.fit(folder, out=out, name="scratch", weights="none", **TINY_RUN))
    return made


@pytest.fixture(scope="module")
def uniform(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return rekindle.soup([run.folder for run in runs[:2]], "uniform", out=tmp_path_factory.mktemp("soups"), name="both")


def test_it_is_the_mean_made_by_hand(runs: list[Run], uniform: Run) -> None:
    one, other, found = (read_model(run.folder) for run in (*runs[:2], uniform))
    assert found.keys() == one.keys()
    for name, tensor in found.items():
        hand = ((one[name].double() + other[name].double()) / 2).to(tensor.dtype)
        assert torch.allclose(tensor, hand, rtol=0, atol=1e-7), name
    assert uniform.result["soup"] == {"kind": "uniform", "runs": uniform.result["soup"]["runs"], "taken": uniform.result["soup"]["runs"]}
    assert set(uniform.result["soup"]["runs"]) == {"frozen0", "frozen1"}


def test_it_predicts_is_measured_compared_drawn_and_exported(runs: list[Run], uniform: Run, folder: Path, tmp_path: Path) -> None:
    assert uniform.predict([folder / "test"], unsure=True)[0].classes
    assert uniform.evaluate()["accuracy"] == uniform.result["test"]["accuracy"]
    rows = compare([runs[0].folder, runs[1].folder, uniform.folder])
    assert len(rows.methods) == 2 and {row["method"] for row in rows.runs} == {"l2", "uniform soup of l2, l2"}
    page = redraw(uniform.folder).read_text("utf-8")
    assert "2 of 2 runs, averaged" in page and not (uniform.folder / "curves.svg").exists()
    assert main(["compare", str(runs[0].folder), str(uniform.folder), "--html", str(tmp_path / "page.html")]) == 0
    assert rekindle.export(uniform.folder, out=tmp_path / "out").parity["onnx"].largest_difference < 1e-5
    with pytest.raises(UserError, match="is a soup of finished runs and had no epochs to analyze"):
        analyze("curves", [uniform.folder])


def test_a_second_call_finds_it(runs: list[Run], uniform: Run) -> None:
    before = (uniform.folder / "result.json").read_bytes()
    again = rekindle.soup([run.folder for run in runs[:2]], "uniform", out=uniform.folder.parent, name="both")
    assert (again.folder / "result.json").read_bytes() == before
    with pytest.raises(UserError, match="holds a run with other settings"):
        rekindle.soup([run.folder for run in runs[:2]], "greedy", out=uniform.folder.parent, name="both")


def test_the_greedy_one_is_never_worse_than_the_best_run(runs: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(run.folder) for run in runs[:3]]
    assert main(["soup", *folders, "--out", str(tmp_path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    best = max(run.result["val"]["accuracy"] for run in runs[:3])
    assert said["val"] >= best and said["runs"][0] == said["taken"][0] and set(said["runs"]) == {"frozen0", "frozen1", "batch"}
    made, ends = Run(Path(said["folder"])), [read_model(runs[0].folder.parent / name) for name in said["taken"]]
    for name, tensor in read_model(made.folder).items():
        if tensor.is_floating_point() and ("running" not in name or "batch" not in said["taken"]):
            hand = sum(end[name].double() for end in ends) / len(ends)
            assert torch.allclose(tensor, hand.to(tensor.dtype), rtol=0, atol=1e-7), name  # type: ignore[union-attr]


def test_statistics_that_differ_are_taken_anew() -> None:
    model = toy(norm=True).double()
    ends = []
    for seed in (1, 2):
        other = toy(seed, norm=True).double()
        other.train()(torch.randn(40, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + seed)
        ends.append(other.state_dict())
    batches = list(torch.randn(30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).split(10))
    model.load_state_dict(mean_weights(ends, [0.25, 0.75]))
    assert torch.allclose(model.fc.weight, 0.25 * ends[0]["fc.weight"] + 0.75 * ends[1]["fc.weight"], rtol=0, atol=1e-15)
    [norm] = differing_norms(model, ends)
    reestimate_(model, [norm], batches)
    means = torch.stack([model.body[0](x).mean(0) for x in batches])  # type: ignore[index, operator]
    assert torch.allclose(norm.running_mean, means.mean(0), rtol=0, atol=1e-12)  # type: ignore[arg-type]
    assert differing_norms(model, [ends[0], ends[0]]) == []


def test_a_network_without_a_share_counts_for_nothing() -> None:
    broken = {"w": torch.tensor([float("nan")])}
    assert float(mean_weights([{"w": torch.tensor([2.0])}, broken], [1.0, 0.0])["w"]) == 2.0
    with pytest.raises(ValueError, match="a mean needs a share for each network"):
        mean_weights([broken], [0.5])


def test_what_cannot_be_averaged_is_refused(runs: list[Run], folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a soup needs two or more different runs"):
        rekindle.soup([runs[0].folder, runs[0].folder], out=tmp_path)
    with pytest.raises(UserError, match="have different source weights, so that no mean of their weights is a network"):
        rekindle.soup([runs[0].folder, runs[3].folder], out=tmp_path)
    other = rekindle.fit(folder, out=tmp_path, name="small", **{**TINY_RUN, "per_class": 3})
    with pytest.raises(UserError, match="have different pictures in their splits"):
        rekindle.soup([runs[0].folder, other.folder], out=tmp_path)
    assert isinstance(runs[0].model[0], nn.Module) and not list(tmp_path.glob("*soup*"))


def test_it_is_made_by_one_command_at_a_time_and_never_resumed(runs: list[Run], uniform: Run, tmp_path: Path) -> None:
    with run_lock(tmp_path / "mine", lambda text: None) as mine:
        assert mine
        with pytest.raises(Busy, match="at this moment"):
            rekindle.soup([run.folder for run in runs[:2]], "uniform", out=tmp_path, name="mine")
    with pytest.raises(UserError, match="is a soup, which has no training to go on with"):
        rekindle.fit(resume=uniform.folder)


@pytest.fixture(scope="module")
def adapted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """A run of LoRA, one of DoRA and one that trained all weights."""
    pytest.importorskip("peft")
    options = {**TINY_RUN, "out": tmp_path_factory.mktemp("adapted"), "batchnorm": "frozen", "keep": "last", "epochs": 2, "lr": 0.2}
    ways = ("lora(rank=2)", "lora(rank=2, dora=True)", "l2")
    return [rekindle.fit(folder, name=f"run{number}", **{**options, "method": way}) for number, way in enumerate(ways)]


def test_adapters_are_averaged_as_the_networks_that_predict(adapted: list[Run], folder: Path, tmp_path: Path) -> None:
    ends = [run.model[0].state_dict() for run in adapted]
    assert any(not torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items() if tensor.ndim == 4)
    for count in (2, 3):
        made = rekindle.soup([run.folder for run in adapted[:count]], "uniform", out=tmp_path, name=f"of{count}")
        again = Run(made.folder)
        found = again.model[0].state_dict()
        assert found.keys() == ends[0].keys()
        for name, tensor in found.items():
            if tensor.is_floating_point():
                hand = sum(end[name].double() for end in ends[:count]) / count
                assert torch.allclose(tensor, hand.to(tensor.dtype), rtol=0, atol=1e-7), name  # type: ignore[union-attr]
        assert again.predict([folder / "test"])[0].classes
        assert again.evaluate()["accuracy"] == made.result["test"]["accuracy"]
    again = rekindle.soup([tmp_path / "of2", adapted[2].folder], "uniform", out=tmp_path, name="again")
    assert again.model[0].state_dict().keys() == found.keys()


def test_statistics_are_taken_of_the_pictures_that_the_best_run_trained_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Samples] = []

    def views(train: Samples, *rest: Any) -> Iterator[Tensor]:
        seen.append(train)
        return first_views(train, *rest)

    monkeypatch.setattr("rekindle.fitting.soup.first_views", views)
    options = {**TINY_RUN, "batchnorm": "batch", "keep": "last", "flip": False, "augment": "random_erasing", "method": "l2+tpgm"}
    made = [rekindle.fit(folder, out=tmp_path, seed=seed, name=f"run{seed}", **options) for seed in (0, 1)]
    both = rekindle.soup([run.folder for run in made], "uniform", out=tmp_path, name="both")
    said = [json.loads((run.folder / "data.json").read_text("utf-8")) for run in (*made, both)]
    assert said[0]["files"] != said[1]["files"] and said[2] in said[:2]
    assert any(note.startswith("tpgm: 2 of the 12 training pictures are held out") for note in said[2]["notes"])
    assert [(train.preprocessing.flip, len(train)) for train in seen] == [(False, 10)] and seen[0].augment is not None
