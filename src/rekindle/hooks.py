"""Forward hooks that keep the activations of named modules."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

INPUT = ":input"


class FeatureHooks:
    """Keep the outputs of named modules during a forward pass, and for "NAME:input" their first inputs.

    Args:
        model: Where the modules are.
        names: Modules by name for their outputs, or "NAME:input" for a module's first input.
    """

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        self._kept: dict[str, Tensor] = {}
        self._handles = []
        for name in sorted(set(names)):
            module = model.get_submodule(name.removesuffix(INPUT))
            if name.endswith(INPUT):
                self._handles.append(module.register_forward_pre_hook(_Keep(name, self._kept)))
            else:
                self._handles.append(module.register_forward_hook(_Keep(name, self._kept)))

    def take(self) -> dict[str, Tensor]:
        """The activations since the last call.

        Returns:
            Activations by the name of the layer.
        """
        kept = dict(self._kept)
        self._kept.clear()
        return kept

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()


class _Keep:
    """The hook; a deep copy of the network, as short trials make, keeps into a dictionary of its own."""

    def __init__(self, name: str, kept: dict[str, Tensor]) -> None:
        self._name, self._kept = name, kept

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any = None) -> None:
        found = inputs[0] if output is None else output
        if isinstance(found, Tensor):
            self._kept[self._name] = found

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Keep":
        return _Keep(self._name, {})
