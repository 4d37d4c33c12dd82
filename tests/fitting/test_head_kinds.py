"""Networks whose pre-trained form has no classifier, such as DINOv2's, get one and train."""

from pathlib import Path

import pytest

import rekindle
from tests.toys import TINY_RUN, picture_folder


@pytest.mark.filterwarnings("ignore::rekindle.RekindleWarning")
@pytest.mark.parametrize("head_type", ["auto", "linear"])
def test_an_encoder_of_timm_without_a_classifier_is_fitted(head_type: str, tmp_path: Path) -> None:
    data = picture_folder(tmp_path / "data", {"train": 4, "val": 2, "test": 2})
    encoder = {"model": "vit_small_patch14_dinov2.lvd142m", "weights": "none", "image_size": 28, "head_type": head_type}
    run = rekindle.fit(data, out=tmp_path / "runs", **TINY_RUN | encoder)
    assert run.result["test"]["count"] == 4 and len(run.predict(sorted(data.glob("test/*/*.png")))) == 4
