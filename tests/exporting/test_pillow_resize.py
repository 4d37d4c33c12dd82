"""The resize that is exported is Pillow's to the last bit."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from rekindle.data.batches import center_crop
from rekindle.data.cache.decode import MAX_RATIO, resize
from rekindle.exporting.pillow_resize import FILTERS, ResizeAndCrop


@pytest.mark.parametrize("interpolation", FILTERS)
@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 300), edge=st.integers(1, 120), room=st.integers(0, 30), seed=st.integers(0, 9))
def test_every_pixel_is_pillows(interpolation: str, height: int, width: int, edge: int, room: int, seed: int) -> None:
    assume(max(height, width) <= MAX_RATIO * min(height, width) and room < edge)
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    wanted = center_crop(np.asarray(resize(Image.fromarray(image), edge, interpolation)), edge - room)
    found = ResizeAndCrop(edge, edge - room, interpolation)(torch.from_numpy(image)).permute(1, 2, 0)
    assert np.array_equal(found.numpy(), wanted)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("size", [(200, 90), (90, 200), (183, 91)])
def test_sharp_edges_and_tall_pictures(interpolation: str, size: tuple[int, int]) -> None:
    """Black and white overshoot under the bicubic filter, where the order of the two passes shows most."""
    image = np.random.default_rng(0).integers(0, 2, (*size, 3), np.uint8) * 255
    wanted = center_crop(np.asarray(resize(Image.fromarray(image), 40, interpolation)), 35)
    assert np.array_equal(ResizeAndCrop(40, 35, interpolation)(torch.from_numpy(image)).permute(1, 2, 0).numpy(), wanted)
