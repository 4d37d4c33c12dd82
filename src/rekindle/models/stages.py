"""Names for the parts of a network from input to output, so that freezing and analyses can speak of them."""

from torch import nn

OPENED = ("features", "blocks", "stages", "layers", "layer", "encoder", "trunk", "body", "model", "backbone", "visual")


def stages(module: nn.Module, head: list[str]) -> dict[str, list[str]]:
    """Parameter names by stage, in the order of definition; each parameter outside the head is in just one.

    Containers such as `blocks` or `features` are opened into their children; what comes before the first of them, and loose
    parameters (a class token, position embeddings), make up "stem".

    Args:
        module: The network.
        head: Names of its classifier's layers.
    """
    inside = tuple(f"{name}." for name in head)
    parts: dict[str, list[str]] = {}
    for name, _ in module.named_parameters():
        if not name.startswith(inside):
            parts.setdefault(_stage(name, begun=any(key != "stem" for key in parts)), []).append(name)
    return parts


def _stage(name: str, begun: bool) -> str:
    pieces = name.split(".")
    depth = 0
    while depth < len(pieces) - 2 and pieces[depth] in OPENED:
        depth += 1
    if depth:
        return ".".join(pieces[: depth + 1])
    named = pieces[0].startswith("layer") and len(pieces) > 1
    return pieces[0] if named or (begun and len(pieces) > 1) else "stem"
