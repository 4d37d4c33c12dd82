"""Which number format a network trains fastest in, on this machine."""

import hashlib
import platform
import time
from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import TypedDict

from rekindle.data.cache.cache_dir import home
from rekindle.models.structure import groups_convolutions
from rekindle.stored import FileFormat

Precision = Literal["bf16", "32"]

IMAGES, ROUNDS = 8, 2

CLEARLY = 1.05
"""Bfloat16 is to be faster by this factor: float32 costs no accuracy."""


class Speeds(TypedDict):
    """Seconds of a forward and a backward pass."""

    bf16: float
    float32: float


SPEEDS = FileFormat(1, Speeds, "it is measured again")


def automatic_precision(module: nn.Module | None = None, image_size: int | None = None, device: str = "auto") -> Precision:
    """ "bf16" where the GPU, or the processor by AMX or AVX512-BF16, multiplies bfloat16 in hardware and that pays; else "32".

    On a processor grouped convolutions may be slower in bfloat16: of the networks that have some, depthwise MobileNets and EfficientNets
    train faster in float32, RegNets and ConvNeXts in bfloat16. So these are measured, once per network and machine, and the answer is kept
    beside the decoded pictures.

    Args:
        module: The network. Without one, what the machine has decides.
        image_size: Edge of its pictures in pixels; without it nothing is measured, and grouped convolutions mean float32.
        device: As for `rekindle.fit`; "cpu" is the processor also where there is a GPU.

    Returns:
        "bf16" or "32".
    """
    if device != "cpu" and torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "32"
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    if not any(getattr(torch.cpu, check, lambda: False)() for check in checks):
        return "32"
    if module is None or not groups_convolutions(module):
        return "bf16"
    if image_size is None:
        return "32"
    speeds = kept_speeds(module, image_size)
    return "bf16" if CLEARLY * speeds["bf16"] < speeds["float32"] else "32"


def kept_speeds(module: nn.Module, image_size: int) -> Speeds:
    """What was measured of a network of this structure on this machine, else what is measured now.

    Returns:
        Seconds in both formats.
    """
    path = home() / "precision" / f"{_name(module, image_size)}.json"
    return SPEEDS.kept(path, lambda: measured_speeds(module, image_size))


def measured_speeds(module: nn.Module, image_size: int) -> Speeds:
    """The least time of two for `IMAGES` random pictures on the processor, in turn; the module is left as it was, but without gradients.

    Returns:
        Seconds in both formats.
    """
    with torch.random.fork_rng(devices=[]):
        x = torch.rand(IMAGES, 3, image_size, image_size).contiguous(memory_format=torch.channels_last)
    training = {name: part.training for name, part in module.named_modules()}
    module.to(memory_format=torch.channels_last).eval()  # Statistics stay as they are, and nothing is drawn.
    try:
        rounds = [(_seconds(module, x, True), _seconds(module, x, False)) for _ in range(1 + ROUNDS)][1:]
    finally:
        for name, part in module.named_modules():
            part.training = training[name]
        module.zero_grad(set_to_none=True)
    return {"bf16": min(half for half, _ in rounds), "float32": min(whole for _, whole in rounds)}


def _seconds(module: nn.Module, x: Tensor, half: bool) -> float:
    began = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        output = module(x)
    output.float().square().mean().backward()
    module.zero_grad(set_to_none=True)
    return time.perf_counter() - began


def _name(module: nn.Module, image_size: int) -> str:
    """By all that decides the speeds but other work on the machine: layers and shapes, size, processor, library."""
    layers = [(type(part).__name__, *(tuple(p.shape) for p in part.parameters(recurse=False))) for part in module.modules()]
    facts = [layers, image_size, platform.processor() or platform.machine(), torch.backends.cpu.get_cpu_capability(), torch.__version__]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
