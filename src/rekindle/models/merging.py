"""Layers that hold another one, as peft's do: the names of their weights, and one layer in their place once they are trained."""

from typing import Any

from torch import nn

BASE = "base_layer."


def show_base_as_itself(module: nn.Module) -> None:
    """Let checkpoints know the weights of the layer inside by the names that they had before it was wrapped."""
    module.register_state_dict_post_hook(_outer_names)
    module.register_load_state_dict_pre_hook(_inner_names)


def _outer_names(module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    for key in [key for key in state if key.startswith(prefix + BASE)]:
        state[prefix + key.removeprefix(prefix + BASE)] = state.pop(key)


def _inner_names(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    for leaf in ("weight", "bias"):
        if prefix + leaf in state:
            state[f"{prefix}{BASE}{leaf}"] = state.pop(prefix + leaf)


def merge_(model: nn.Module) -> None:
    """Put in the place of each layer that can be merged into the one that it holds that one, merged."""
    for name, module in list(model.named_modules()):
        if callable(getattr(module, "merge", None)) and callable(getattr(module, "get_base_layer", None)):
            module.merge()
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, module.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config
