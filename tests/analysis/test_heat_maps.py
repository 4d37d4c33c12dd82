"""Where a network looks: maps of the right shape and range, which find what a network was taught to look at."""

import builtins
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, max_pool2d

from rekindle import models
from rekindle.analysis.heat_maps import heat_maps
from rekindle.errors import UserError

EDGE, SQUARE, MARGIN = 32, 8, 9


def small_vit(**options: Any) -> nn.Module:
    """Two blocks on an 8 x 8 grid."""
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=EDGE, patch_size=4, depth=2, embed_dim=32, num_heads=2, num_classes=2, **options
    )


def small_swin() -> nn.Module:
    """Blocks that work on maps with their channels last."""
    return timm.create_model(
        "swin_tiny_patch4_window7_224",
        img_size=EDGE,
        patch_size=2,
        window_size=4,
        depths=(1, 1),
        embed_dim=24,
        num_heads=(2, 2),
        num_classes=2,
    )


def torchvision_vit() -> nn.Module:
    """torchvision's, whose attention returns a tuple."""
    module = torchvision.models.VisionTransformer(EDGE, 8, 2, 2, 32, 64, num_classes=2)
    nn.init.normal_(module.heads.head.weight)  # It begins at 0, and nothing would speak for any class.
    return module


RANDOM: dict[str, Callable[[], nn.Module]] = {
    "tiny": lambda: models.build("tiny", weights="none", classes=2).module,
    "resnet of timm": lambda: timm.create_model("resnet10t", num_classes=2),
    "squeezenet of torchvision": lambda: torchvision.models.squeezenet1_1(num_classes=2),
    "vit": small_vit,
    "vit with registers": lambda: small_vit(reg_tokens=3),
    "vit without a class token": lambda: small_vit(class_token=False, global_pool="avg"),
    "vit of torchvision": torchvision_vit,
    "swin": small_swin,
}


@pytest.mark.parametrize("name", RANDOM)
def test_maps_have_the_size_of_the_picture_and_run_from_0_to_1(name: str) -> None:
    torch.manual_seed(0)
    module = RANDOM[name]().eval()
    edge = 64 if "net" in name else EDGE
    x, targets = torch.randn(3, 3, edge, edge), torch.tensor([0, 1, 1])
    maps = heat_maps(module, x, targets)
    assert maps.shape == (3, edge, edge) and maps.min() >= 0 and not maps.requires_grad
    assert all(float(one.max()) in (0, pytest.approx(1)) for one in maps) and maps.any()
    torch.testing.assert_close(maps, heat_maps(module, x, targets))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    assert all(parameter.grad is None for parameter in module.parameters())


def planted(count: int, stream: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Noise, of class 1 with a bright square at a random place, and where that is."""
    x, labels = 0.3 * torch.randn(count, 3, EDGE, EDGE, generator=stream), torch.randint(2, (count,), generator=stream)
    inside = torch.zeros(count, EDGE, EDGE)
    for row, (top, left) in enumerate(torch.randint(EDGE - SQUARE + 1, (count, 2), generator=stream).tolist()):
        place = (slice(top, top + SQUARE), slice(left, left + SQUARE))
        x[row, 0][place] += 3 * labels[row]
        inside[row][place] = 1
    return x, labels, inside


@pytest.mark.parametrize(
    ("make", "steps", "rate"),
    [(lambda: models.build("tiny", classes=2).module, 8, 2e-3), (small_vit, 30, 5e-3), (lambda: small_vit(reg_tokens=2), 30, 5e-3)],
    ids=["tiny", "vit", "vit with registers"],
)
def test_a_square_that_decides_the_class_gets_most_of_the_heat(make: Callable[[], nn.Module], steps: int, rate: float) -> None:
    """The square and a margin about it, a cell of the coarsest grid wide, are less than a quarter of the picture."""
    torch.manual_seed(0)
    module, stream = make().train(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate)
    for _ in range(steps):
        x, labels, _ = planted(16, stream)
        optimizer.zero_grad()
        cross_entropy(module(x), labels).backward()
        optimizer.step()
    module.eval()
    x, labels, inside = planted(24, stream)
    assert (module(x).argmax(1) == labels).float().mean() > 0.9
    x, labels, inside = x[labels == 1], labels[labels == 1], inside[labels == 1]
    maps, near = heat_maps(module, x, labels), max_pool2d(inside[:, None], MARGIN, 1, MARGIN // 2)[:, 0]
    assert near.mean() < 0.25
    assert float((maps * near).sum() / maps.sum()) > 0.5


def test_a_network_without_a_map_is_told() -> None:
    with pytest.raises(UserError, match="no feature map"):
        heat_maps(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16, 2)), torch.zeros(1, 3, 4, 4), torch.tensor([0]))


def test_without_captum_the_package_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **options: Any) -> Any:
        if name.startswith("captum"):
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pip install 'rekindle\[explain\]'"):
        heat_maps(nn.Identity(), torch.zeros(1, 3, 4, 4), torch.tensor([0]))
