"""Names for the parts of a network from input to output, so that freezing and analyses can speak of them."""

from torch import nn

OPENED = ("features", "blocks", "stages", "layers", "layer", "encoder", "trunk", "body", "model", "backbone", "visual")


def stages(module: nn.Module, head: list[str]) -> dict[str, list[str]]:
    """Parameter-name prefixes by stage, in the order of definition; each parameter outside the head is in just one.

    Containers such as `blocks` or `features` are opened into their children; loose parameters (a class token, position
    embeddings) and what comes before the first container make up "stem".
    """
    inside = tuple(f"{name}." for name in head)
    parts: dict[str, list[str]] = {}
    opened = False
    for name, _ in module.named_parameters():
        if name.startswith(inside):
            continue
        pieces = name.split(".")
        if pieces[0] in OPENED and len(pieces) > 2:
            opened = True
            deeper = pieces[1] in OPENED and len(pieces) > 3
            key = ".".join(pieces[: 3 if deeper else 2])
            parts.setdefault(key, [key + "."])
        elif pieces[0].startswith("layer") or opened:
            parts.setdefault(pieces[0], [pieces[0] + ("." if len(pieces) > 1 else "")])
        else:
            prefix = pieces[0] + ("." if len(pieces) > 1 else "")
            stem = parts.setdefault("stem", [])
            if prefix not in stem:
                stem.append(prefix)
    return parts
