"""What a restart draws: layers by their own initialisation, in place, equal on every rank and device; and what an optimiser forgets.

A layer is drawn by its `reset_parameters`, PyTorch's default initialisation, in which BatchNorm's statistics start anew as well.
Parameters that no layer draws (class tokens, position embeddings, scales of ConvNeXt's blocks) keep their values.
"""

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rekindle.method import Net, require
from rekindle.models.structure import normalises
from rekindle.rng import use_generator

Masks = dict[str, Tensor]  # {name of a parameter in its layer: (its shape) True where it is drawn}.

GENTLE = 0.1
"""Scale of a fresh head in a network without normalisation layers: docs/results/rifle_factors."""


def reinitialize_(modules: Iterable[nn.Module], stream: torch.Generator, scale: float = 1.0) -> None:
    """Draw every submodule that knows how; see `draw_`."""
    draw_(drawable(modules), stream, scale)


def draw_(layers: Iterable[nn.Module], stream: torch.Generator, scale: float = 1.0) -> None:
    """Give each layer the values of its initialisation: same tensors, new values; BatchNorm's statistics included.

    `scale` multiplies matrices and kernels, not biases or what normalises.
    """
    with use_generator(stream), torch.no_grad():
        for layer in layers:
            for tensor, value in fresh(layer):
                tensor.copy_(value)
            for parameter in layer.parameters(recurse=False):
                if parameter.ndim > 1:
                    parameter.mul_(scale)


def draw_where_(masks: Iterable[tuple[nn.Module, Masks]], stream: torch.Generator, scale: float = 1.0) -> None:
    """Give the entries of layers that their masks name, by parameter, the values of the layers' initialisation; the others stay.

    `scale` multiplies what is drawn of matrices and kernels.
    """
    with use_generator(stream), torch.no_grad():
        for layer, named in masks:
            drawn = {id(tensor): value for tensor, value in fresh(layer)}
            for name, mask in named.items():
                tensor = layer.get_parameter(name)
                value = drawn[id(tensor)] * (scale if tensor.ndim > 1 else 1.0)
                tensor.copy_(torch.where(mask.to(tensor.device), value.to(tensor.device), tensor))


def drawable(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """The modules and submodules that have an initialisation."""
    return [part for module in modules for part in module.modules() if _initialiser(part) is not None]


def layers_of(model: nn.Module, names: Iterable[str]) -> list[nn.Module]:
    """The modules that hold the parameters of these names themselves, and have an initialisation."""
    modules = dict(model.named_modules())
    held = dict.fromkeys(name.rpartition(".")[0] for name in names)
    return [modules[name] for name in held if _initialiser(modules[name]) is not None]


def own_parameters(layers: Iterable[nn.Module]) -> list[nn.Parameter]:
    """Those that the layers hold themselves."""
    return [parameter for layer in layers for parameter in layer.parameters(recurse=False)]


def fresh(part: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Each parameter and buffer of a module with the value that its initialisation gives, drawn on the CPU; the module is left as it is."""
    drawn: dict[int, Tensor] = {}
    initialise = _initialiser(_on_cpu(part, drawn))
    assert initialise is not None
    initialise()
    return [(tensor, drawn[id(tensor)].detach()) for tensor in (*part.parameters(), *part.buffers())]


def _on_cpu(part: nn.Module, copies: dict[int, Tensor]) -> nn.Module:
    """A twin of a module whose tensors are copies on the CPU, each once, by the ids of its own.

    Neither the tensors change, whose hooks a data-parallel wrapper holds, nor is anything copied that hangs on a module by a hook.
    """
    twin = copy.copy(part)
    twin._parameters = {name: p if p is None else copies.setdefault(id(p), _parameter(p)) for name, p in part._parameters.items()}  # type: ignore[misc]
    twin._buffers = {
        name: b if b is None else copies.setdefault(id(b), b.detach().to("cpu", copy=True)) for name, b in part._buffers.items()
    }
    twin._modules = {name: m if m is None else _on_cpu(m, copies) for name, m in part._modules.items()}
    return twin


def _parameter(like: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(like.detach().to("cpu", copy=True), like.requires_grad)


def _initialiser(part: nn.Module) -> Callable[[], None] | None:
    found = getattr(part, "_reset_parameters" if isinstance(part, nn.MultiheadAttention) else "reset_parameters", None)
    return found if callable(found) else None


def scale_of_a_head(model: nn.Module) -> float:
    """1, as published, where the network has normalisation layers; `GENTLE` where it has none: there activations grow as it learns, and
    a full draw starts at up to three times the loss of guessing."""
    return 1.0 if normalises(model) else GENTLE


def forget_(optimizer: Optimizer, parameters: Iterable[nn.Parameter] | None = None) -> None:
    """Take momentum and whatever else the optimiser keeps of the parameters, or of all of them."""
    for parameter in list(optimizer.state) if parameters is None else parameters:
        optimizer.state.pop(parameter, None)


def forget_where_(optimizer: Optimizer, masks: Iterable[tuple[nn.Module, Masks]]) -> None:
    """Take what the optimiser keeps of the entries that the masks name; what it keeps of a parameter as a whole goes with all of it."""
    for layer, named in masks:
        for name, mask in named.items():
            parameter = layer.get_parameter(name)
            if bool(mask.all()):
                forget_(optimizer, [parameter])
            for kept in optimizer.state.get(parameter, {}).values():
                if isinstance(kept, Tensor) and kept.shape == parameter.shape:
                    kept.masked_fill_(mask.to(kept.device), 0)


def check_head(owner: str, net: Net) -> None:
    """Refuse a head that cannot be drawn.

    Raises:
        ValueError: If it has no parameters, is frozen, is tied to the backbone, or holds a parameter that no initialisation covers.
    """
    head = net.head_parameters()
    require(bool(head), f"{owner}: the head {list(net.head)} has no parameters to draw anew; name the classifier with head=...")
    frozen = [name for name, p in head.items() if not p.requires_grad]
    require(not frozen, f"{owner}: the head's {frozen[0] if frozen else ''} is frozen, so a fresh draw would never be trained.")
    tied = _also_elsewhere(net.model, [part for module in net.head_modules() for part in module.modules()], head)
    require(not tied, f"{owner}: {tied[0] if tied else ''} is tied to the backbone, which a fresh draw would destroy.")
    covered = {id(p) for p in own_parameters(drawable(net.head_modules()))}
    bare = [name for name, p in head.items() if id(p) not in covered]
    require(not bare, f"{owner}: no reset_parameters() covers {bare[0] if bare else ''}; give that module one, and it is drawn anew.")


def check_layers(owner: str, net: Net, layers: list[nn.Module]) -> None:
    """Refuse layers of the backbone that cannot be drawn.

    Raises:
        ValueError: If one is frozen or tied to another.
    """
    reached = {id(p) for p in own_parameters(layers)}
    drawn = {name: p for name, p in net.parameters().items() if id(p) in reached}
    frozen = [name for name, p in drawn.items() if not p.requires_grad]
    require(not frozen, f"{owner}: {frozen[0] if frozen else ''} is frozen, so a fresh draw would never be trained; freeze fewer stages.")
    tied = _also_elsewhere(net.model, layers, drawn)
    require(not tied, f"{owner}: {tied[0] if tied else ''} is tied to a layer that is kept, which a fresh draw would destroy.")


def _also_elsewhere(model: nn.Module, modules: list[nn.Module], parameters: dict[str, nn.Parameter]) -> list[str]:
    """Names of the parameters that a module outside these holds too."""
    inside = {id(module) for module in modules}
    outside = {id(p) for part in model.modules() if id(part) not in inside for p in part.parameters(recurse=False)}
    return [name for name, p in parameters.items() if id(p) in outside]


def forget_source(net: Net, names: Iterable[str]) -> None:
    """Count parameters as new: what a restart throws away is not worth pulling back to, and its BatchNorm follows the batches."""
    gone = set(names)
    net.source_names = {name: source for name, source in net.source_names.items() if name not in gone}
