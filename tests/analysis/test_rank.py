"""Networks ranked before training: features as the classifier sees them, scores of exactly those, clear messages."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rekindle import UserError, data, models
from rekindle.analysis.ranking import Ranking, features_of, rank
from rekindle.analysis.transferability import h_score, leep, logme
from rekindle.cli import main
from rekindle.models.build import IMAGENET_MEAN, IMAGENET_STD
from tests.toys import picture_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("rank") / "data", {"train": 9, "val": 3, "test": 3}, classes=3)


@pytest.fixture(scope="module")
def found(folder: Path) -> Ranking:
    return rank(folder, ["tiny", "cifar_resnet8=none"])


class Inputs:
    """Samples whose pictures are batches already; random ones fit networks of any size."""

    def __init__(self, count: int = 0, size: int = 0, x: torch.Tensor | None = None) -> None:
        self.x = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0)) if x is None else x

    def __len__(self) -> int:
        return len(self.x)

    def evaluation(self, rows: torch.Tensor, device: object = None) -> torch.Tensor:
        return self.x[rows]


def test_features_are_what_the_classifier_sees() -> None:
    """A linear classifier applied to the features gives the network's own answers, over several batches."""
    module = models.build("tiny").module.train()
    features, probabilities = features_of(module, Inputs(70, 32))  # type: ignore[arg-type]
    assert features.shape == (70, 64) and features.dtype == "float64"
    again = module.linear(torch.from_numpy(features).float()).softmax(1)
    assert torch.allclose(again.double(), torch.from_numpy(probabilities), atol=1e-5)
    assert not module.training, "BatchNorm and dropout must not stir"


@pytest.mark.parametrize(
    ("name", "size", "width", "answers"),
    [
        ("torchvision:squeezenet1_0", 64, 512, 1000),
        ("test_vit", 160, 64, 1000),
        ("deit_tiny_distilled_patch16_224", 224, 384, 1000),
        ("test_resnet", 64, None, 1000),
    ],
)
def test_maps_are_averaged_and_two_classifiers_stand_side_by_side(name: str, size: int, width: int | None, answers: int) -> None:
    module = models.build(name, weights="none").module
    features, probabilities = features_of(module, Inputs(2, size))  # type: ignore[arg-type]
    assert features.ndim == 2 and width in (None, features.shape[1])
    assert probabilities is not None and probabilities.shape == (2, answers)
    if name.endswith("squeezenet1_0"):
        maps = module.features(Inputs(2, size).x)
        assert torch.allclose(torch.from_numpy(features).float(), maps.mean((2, 3)), atol=1e-5)


def test_a_network_without_a_classifier_gives_its_outputs() -> None:
    import timm

    module = timm.create_model("test_resnet", num_classes=0)
    features, probabilities = features_of(module, Inputs(3, 64))  # type: ignore[arg-type]
    assert probabilities is None
    assert torch.allclose(torch.from_numpy(features).float(), module(Inputs(3, 64).x), atol=1e-5)


def test_scores_are_those_of_the_training_pictures_alone(folder: Path, found: Ranking) -> None:
    split = data.open_data(folder, seed=0).splits["train"]
    pixels = data.Pixels.load(split.paths, round(32 * 256 / 224))
    x = data.eval_batch(pixels, torch.arange(27), image_size=32, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    features, probabilities = features_of(models.build("tiny").module, Inputs(x=x))  # type: ignore[arg-type]
    tiny = next(one for one in found.candidates if one.model == "tiny")
    assert tiny.logme == pytest.approx(logme(features, split.labels), abs=1e-6)
    assert tiny.leep == pytest.approx(leep(probabilities, split.labels), abs=1e-6)  # type: ignore[arg-type]
    assert tiny.h_score == pytest.approx(h_score(features, split.labels, shrink=True), abs=1e-6)
    assert (found.pictures, found.classes, tiny.features, tiny.image_size) == (27, ["class0", "class1", "class2"], 64, 32)


def test_the_order_is_logme_and_random_weights_have_no_leep(found: Ranking) -> None:
    scores = [one.logme for one in found.candidates]
    assert scores == sorted(scores, reverse=True)
    assert next(one for one in found.candidates if "none" in one.model).leep is None


def test_a_weights_file_and_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tmp_path / "deep" / "mine.safetensors"
    weights.parent.mkdir()
    save_file(models.build("tiny").module.state_dict(), weights)
    names = f"tiny,cifar_resnet20={weights},cifar_resnet8=none"
    assert main(["rank", str(folder), "--models", names, "--per-class", "6", "--out", str(tmp_path / "out"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    scores = {one["model"]: (one["logme"], one["leep"]) for one in printed["candidates"]}
    assert scores["tiny"] == scores[f"cifar_resnet20={weights}"], "the same weights under two names"
    assert scores["cifar_resnet8=none"][1] is None and printed["pictures"] == 18
    assert {"format": 2, **printed} == json.loads((tmp_path / "out" / "rank.json").read_text())
    assert (tmp_path / "out" / "rank.csv").read_text().count("\n") == 4
    assert (tmp_path / "out" / "rank.png").stat().st_size > 5_000
    assert main(["rank", str(folder), "--models", names, "--per-class", "6", "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "cifar_resnet20=mine.safetensors" in text and "LEEP: how well" in text and "Higher is better" in text


@pytest.mark.parametrize(
    ("models_asked", "options", "wanted"),
    [(["tiny", "tiny"], {}, "different networks"), ([""], {}, "found none"), (["tinny"], {}, "did you mean tiny"),
     (["tiny"], {"per_class": -1}, "--per-class"),
     (["tiny=absent.safetensors"], {}, "no weights file"), (["test_vit=none"], {"image_size": 100}, "give another --image-size, such as 96")],
)  # fmt: skip
def test_what_cannot_be_ranked_is_one_sentence(models_asked: list[str], options: dict[str, Any], wanted: str, folder: Path) -> None:
    with pytest.raises(UserError, match=wanted) as caught:
        rank(folder, models_asked, **options)
    assert "\n" not in str(caught.value)


def test_trained_weights_beat_random_ones_on_real_photographs(shared: Path) -> None:
    weights = shared / "weights/cifar_resnet20-cifar10.safetensors"
    found = rank(shared / "data/sign_digits", [f"cifar_resnet20={weights}", "cifar_resnet20=none"], per_class=20)
    assert [one.label for one in found.candidates] == ["cifar_resnet20=cifar_resnet20-cifar10.safetensors", "cifar_resnet20=none"]
    assert found.candidates[0].h_score > found.candidates[1].h_score
