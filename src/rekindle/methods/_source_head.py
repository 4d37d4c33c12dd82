"""A copy of the source's classification layer on the features of the network that is fine-tuned."""

import copy
from typing import Any

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from rekindle.method import Net, Source, require

NAME = "source_head"


def source_part(net: Net, source: Source, owner: str) -> nn.Module:
    """A trainable copy of the part of the source that takes the features and gives the logits.

    Raises:
        ValueError: If the source has no classifier, or more than one.
    """
    require(
        bool(net.classifier), f"{owner}: the source has no single classifier to keep; load the network with the one it was trained with."
    )
    return copy.deepcopy(source.model.get_submodule(net.classifier)).requires_grad_(True).train(net.model.training)


def keep_source_head(net: Net, source: Source, owner: str, trainable: bool = True) -> str:
    """Add the source's classifier beside the new one, fed with the same features in training; its parameters are shared ones.

    Dropout inside it is left out: what it says of features that have not changed is what the source says.

    Args:
        net: Its model gets a child `source_head`; two methods that ask for it share it.
        source: Where the classifier comes from.
        owner: The method's name, for messages.
        trainable: Whether its parameters train, at the backbone's learning rate; if two methods differ, they do.

    Returns:
        The layer that holds the source logits of the network in training.
    """
    if not hasattr(net.model, NAME):
        part = _without_dropout(source_part(net, source, owner)).requires_grad_(trainable)
        net.model.add_module(NAME, part)
        net.model.get_submodule(net.classifier).register_forward_pre_hook(_Feed(part))
        net.source_names.update({f"{NAME}.{leaf}": f"{net.classifier}.{leaf}" for leaf, _ in part.named_parameters()})
    elif trainable:
        net.model.get_submodule(NAME).requires_grad_(True)
    return NAME


def _without_dropout(part: nn.Module) -> nn.Module:
    """Replace dropout by identity: otherwise the distillation loss is not zero for a network that equals its source.

    The masks matter much: SqueezeNet ends in dropout, and its logits have a norm of about 300.
    """
    for name, module in list(part.named_modules()):
        if isinstance(module, _DropoutNd):
            if not name:
                return nn.Identity()
            part.set_submodule(name, nn.Identity())
    return part


class _Feed:
    """A forward pre-hook that shows a module's input to another one; an object, so that a deep copy of the network feeds its own."""

    def __init__(self, target: nn.Module) -> None:
        self.target = target

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if module.training:
            self.target(inputs[0])
