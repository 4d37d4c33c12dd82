"""Compute a network again and again behind one layer, whose output is changed, without computing what lies before it.

One full forward pass records the outputs of all modules that finish before the layer does. In each further pass their
`forward` is replaced by one that hands out what was recorded. Parent modules of the layer are executed
again (including arithmetic outside submodules); submodules that had returned before the layer give their recorded outputs.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rekindle.method import require

Change = Callable[[Tensor], Tensor]


@dataclass
class _Call:
    """A finished call of a module, and a copy of what it returned.

    `fragile`: whether code that runs again changes the output in place, as ``out += shortcut`` does; then a fresh copy is
    handed out each time. It is so of all until a pass has shown otherwise.
    """

    module: nn.Module
    output: Any
    fragile: bool = True


class Rerun:
    """A recorded forward pass, which a call runs again from one layer on.

    The network is left as it was, whatever is raised. It must compute the same twice, as in evaluation mode, and its
    modules must not keep results for each other outside of what they return.

    Args:
        model: The network.
        layer: Name of the module whose output is changed.
        inputs: (B, ...) what the network is given, each time.

    Attributes:
        outputs: What the network returned.
        recorded: What the layer returned.

    Raises:
        ValueError: If the layer does not run, or returns something else than a tensor.
    """

    @torch.no_grad()
    def __init__(self, model: nn.Module, layer: str, inputs: Tensor) -> None:
        self._model, self._inputs = model, inputs
        self._layer = model.get_submodule(layer)
        recorder = _Recorder(self._layer)
        with _forwards(list(model.modules()), recorder.forward):
            self.outputs = model(inputs)
        self._calls = recorder.calls
        ok = bool(self._calls) and isinstance(self._calls[-1].output, Tensor)
        require(ok, f"the layer {layer!r} does not run, or gives no single tensor, so it cannot be changed.")
        self.recorded: Tensor = self._calls[-1].output

    @torch.no_grad()
    def __call__(self, change: Change) -> Any:
        """What the network returns if the layer's output is `change` of itself.

        Args:
            change: Given a copy, which it may alter in place; returns the tensor to go on with.
        """
        replay = _Replay(self._calls, self._layer, change)
        with _forwards([call.module for call in self._calls], replay.forward):
            outputs = self._model(self._inputs)
        replay.settle()
        return outputs


class _Recorder:
    """Keeps finished calls until the layer finishes; a call that finishes takes the place of those inside it."""

    def __init__(self, layer: nn.Module) -> None:
        self.calls: list[_Call] = []
        self._layer = layer
        self._open: list[list[_Call]] = [[]]

    def forward(self, module: nn.Module, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call, and keep a copy of the output: what comes after may change it in place."""
        if self.calls:
            return original(*args, **kwargs)
        self._open.append([])
        output = original(*args, **kwargs)
        if self.calls:
            return output
        self._open.pop()
        self._open[-1].append(_Call(module, _copy(output)))
        if module is self._layer:
            self.calls = [call for finished in self._open for call in finished]
        return output


class _Replay:
    """Hands out recorded outputs in their order, the layer's changed; whatever comes later is computed."""

    def __init__(self, calls: list[_Call], layer: nn.Module, change: Change) -> None:
        self._calls, self._layer, self._change = calls, layer, change
        self._next = 0
        self._handed: list[tuple[_Call, Tensor, int]] = []

    def forward(self, module: nn.Module, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Stand in for a module that was recorded; it may be called again after its recorded calls."""
        if self._next == len(self._calls) or self._calls[self._next].module is not module:
            output = original(*args, **kwargs)
        else:
            output = self._hand_out(self._calls[self._next])
            self._next += 1
        return self._change(output) if module is self._layer else output

    def settle(self) -> None:
        """Learn which outputs stay as they are, so that they need no copy from now on."""
        for call, output, version in self._handed:
            call.fragile = output._version != version

    def _hand_out(self, call: _Call) -> Any:
        if call.module is self._layer:
            return _copy(call.output)
        output = _copy(call.output) if call.fragile else call.output
        if isinstance(output, Tensor):
            self._handed.append((call, output, output._version))
        return output


def _copy(output: Any) -> Any:
    return output.clone() if isinstance(output, Tensor) else copy.deepcopy(output)


@contextmanager
def _forwards(modules: list[nn.Module], forward: Callable[..., Any]) -> Iterator[None]:
    """Let ``forward(module, its own forward, ...)`` stand in for each module's `forward`, hooks around it included."""
    before = {module: module.__dict__.get("forward") for module in modules}
    try:
        for module in before:
            module.__dict__["forward"] = partial(forward, module, module.forward)
        yield
    finally:
        for module, own in before.items():
            if own is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = own
