"""Which pre-trained networks can be built without a download, and how much work they are."""

from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from rekindle.models.build import build

FILES = ("model.safetensors", "pytorch_model.bin")  # One of them holds the weights in a folder of the Hugging Face cache.


def cached_networks() -> list[str]:
    """Names of the networks whose weights were downloaded before by timm or torchvision, as `build` takes them.

    Returns:
        Names, sorted; none where nothing was downloaded.
    """
    return [*_cached_by_timm(), *_cached_by_torchvision()]


def _cached_by_timm() -> list[str]:
    import timm
    from huggingface_hub import constants, try_to_load_from_cache

    names = sorted(path.name.removeprefix("models--timm--") for path in Path(constants.HF_HUB_CACHE).glob("models--timm--*"))
    return [
        name
        for name in names
        if timm.is_model(name)
        and any(isinstance(try_to_load_from_cache(f"timm/{name}", file, constants.HF_HUB_CACHE), str) for file in FILES)
    ]


def _cached_by_torchvision() -> list[str]:
    import torchvision

    files = {path.name for path in Path(torch.hub.get_dir(), "checkpoints").glob("*.pth")}
    if not files:
        return []
    known = torchvision.models.list_models(module=torchvision.models)
    choices = {name: torchvision.models.get_model_weights(name) for name in known}
    return [f"torchvision:{name}" for name, kinds in choices.items() if len(list(kinds)) and Path(kinds.DEFAULT.url).name in files]


def multiply_adds(name: str, image_size: int | None = None) -> float:
    """Multiplications and additions, counted as one, of a network on one picture; computed without weights.

    Args:
        name: As `build` takes it.
        image_size: Edge of the picture; None takes what the network was trained on.

    Returns:
        A count, 0 or more.

    Raises:
        UserError, RuntimeError: If the network cannot be built, or takes no picture of this size.
    """
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        loaded = build(name, weights="none", image_size=image_size or 0)
        size = image_size or loaded.input_size
        loaded.module.eval()(torch.empty(1, 3, size, size))
    return float(counter.get_total_flops()) / 2
