"""What the tests of a GPU have in common. `REKINDLE_GPU=cpu` tries their mechanics on a machine that has none."""

import os

import pytest
import torch


@pytest.fixture
def device() -> str:
    """The kind of device under test."""
    asked = os.environ.get("REKINDLE_GPU", "cuda")
    if asked == "cuda" and not torch.cuda.is_available():
        pytest.skip("this machine has no GPU")
    return asked
