"""The README's code runs, on a small network in place of a downloaded one."""

import re
from pathlib import Path
from typing import Any

import torch

import rekindle
from rekindle.methods._catalog import VARIANTS
from rekindle.registry import directions, methods

README = Path(__file__).resolve().parents[2] / "README.md"


def block(words: str) -> str:
    [found] = [text for text in re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL) if words in text]
    return found


def test_the_loop() -> None:
    code = block("tuner.gradients_()")
    for old, new in (('"torchvision:resnet50", classes=200', '"cifar_resnet8", classes=3, weights="none"'), ("epochs=40", "epochs=4")):
        assert old in code
        code = code.replace(old, new)
    loader = [(torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0])) for _ in range(2)]
    space: dict[str, Any] = {"rekindle": rekindle, "torch": torch, "loader": loader, "criterion": torch.nn.functional.cross_entropy}
    exec(code, space)  # noqa: S102
    assert space["scheduler"].last_epoch == 4


def test_the_table_of_methods_is_complete() -> None:
    table = README.read_text("utf-8").partition("## Methods")[2].partition("\n## ")[0]
    listed = set(re.findall(r"`(\w+)`", table))
    assert listed >= {*methods(), *VARIANTS, *directions()} - {"cosine", "plain_sum"}
