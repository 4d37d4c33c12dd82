"""The README's code runs, on a small network in place of a downloaded one."""

import re
from pathlib import Path
from typing import Any

import torch

import rekindle
from rekindle.method import Clock
from tests.toys import toy, toy_tuner

README = Path(__file__).resolve().parents[2] / "README.md"


def block(words: str) -> str:
    [found] = [text for text in re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.S) if words in text]
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


def test_a_method_of_your_own() -> None:
    space: dict[str, Any] = {}
    exec(block("class PullHead"), space)  # noqa: S102
    method = space["PullHead"](alpha=0.5)
    model = toy()
    toy_tuner([method], model)
    found = {id(p): g for p, g in method.gradient(Clock(0, 1))}
    assert torch.equal(found[id(model.fc.weight)], 0.5 * model.fc.weight.detach()) and len(found) == 2
