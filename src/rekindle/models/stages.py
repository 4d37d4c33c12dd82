"""Names for the parts of a network from input to output, so that freezing and analyses can speak of them."""

import re

from torch import nn

OPENED = ("features", "blocks", "stages", "layers", "levels", "encoder", "trunk", "body", "model", "backbone", "visual")
NUMBERED = re.compile(r"(layer|stage|block|level|s)_?\d+")
WRAPPING = 0.9  # A part with more than this share of the parameters is a wrapper, whatever its name.


def stages(module: nn.Module, head: list[str]) -> dict[str, list[str]]:
    """Parameter names by stage, in the order of definition; each parameter outside the head is in just one.

    A stage is a child of the network with parameters. Containers such as `blocks` or `features`, and a part that holds
    nearly all parameters, are opened into their children. What comes before the first of them (or before `layer1`,
    `stage1` and the like), and loose parameters (a class token, position embeddings), make up "stem".

    Args:
        module: The network.
        head: Names of its classifier's layers.

    Returns:
        Names of parameters by stage, from input to output.

    Examples:
        >>> from rekindle.models import build
        >>> list(stages(build("cifar_resnet8", weights="none", classes=10).module, ["linear"]))
        ['stem', 'layer1', 'layer2', 'layer3']
    """
    inside = tuple(f"{name}." for name in head)
    sizes = {name: p.numel() for name, p in module.named_parameters() if not name.startswith(inside)}
    parts = _parts(module, "", sizes)
    stem = set(parts[: _first_of_body(module, parts)])
    named: dict[str, list[str]] = {"stem": [], **{part: [] for part in parts if part not in stem}}
    for name in sizes:
        owner = next((part for part in parts if name.startswith(f"{part}.")), "stem")
        named["stem" if owner in stem else owner].append(name)
    return {stage: members for stage, members in named.items() if members}


def _parts(module: nn.Module, prefix: str, sizes: dict[str, int]) -> list[str]:
    """Names of the stages: children with parameters, containers among them opened."""
    found: list[str] = []
    for child, part in module.named_children():
        name = f"{prefix}{child}"
        size = _size(name, sizes)
        opened = child in OPENED or size > WRAPPING * sum(sizes.values())
        within = _parts(part, f"{name}.", sizes) if size and opened else []
        if size:
            found += within if len(within) > 1 else [name]
    return found


def _size(part: str, sizes: dict[str, int]) -> int:
    return sum(size for name, size in sizes.items() if name.startswith(f"{part}."))


def _first_of_body(module: nn.Module, parts: list[str]) -> int:
    """How many of the first parts belong to the stem: those before the first numbered or opened one, or before the first block."""
    opened = [part for part in parts if "." in part]
    for position, part in enumerate(parts):
        numbered = NUMBERED.fullmatch(part.split(".")[-1])
        if position and (numbered or (part in opened and parts[0] not in opened)):
            return position
    blocks = [position for position, part in enumerate(parts) if _has_children(module.get_submodule(part))]
    return blocks[0] if blocks else 0


def _has_children(part: nn.Module) -> bool:
    return any(True for child in part.children() if any(True for _ in child.parameters()))
