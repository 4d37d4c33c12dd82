"""What a module's own initialisation gives is drawn beside the module, which keeps its tensors and whoever holds on to them."""

import copy

import pytest
import torch
from torch import Tensor, nn

from rekindle.methods.restarts._draw import fresh
from rekindle.rng import keyed_generator, use_generator

PARTS: dict[str, nn.Module] = {
    "linear": nn.Linear(3, 4), "convolution": nn.Conv2d(2, 3, 3), "batchnorm": nn.BatchNorm2d(3), "attention": nn.MultiheadAttention(4, 2),
}  # fmt: skip


def accumulator(parameter: nn.Parameter) -> object:
    """The node of autograd that adds to `.grad`, on which a data-parallel wrapper hangs its hooks."""
    node = parameter.expand_as(parameter).grad_fn
    assert node is not None
    return node.next_functions[0][0]


@pytest.mark.parametrize("kind", PARTS)
def test_the_module_is_left_as_it_is(kind: str) -> None:
    part = copy.deepcopy(PARTS[kind])
    part.register_forward_hook(lambda *_: None)
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in part.state_dict(keep_vars=True).items()}
    nodes = {name: accumulator(parameter) for name, parameter in part.named_parameters()}
    found = fresh(part)
    for name, tensor in part.state_dict(keep_vars=True).items():
        assert tensor.data_ptr() == before[name][0] and torch.equal(tensor, before[name][1])
    assert {name: accumulator(parameter) for name, parameter in part.named_parameters()} == nodes
    assert [id(tensor) for tensor, _ in found] == [id(tensor) for tensor in (*part.parameters(), *part.buffers())]
    assert not any(value.requires_grad for _, value in found)


@pytest.mark.parametrize("kind", PARTS)
def test_it_is_what_the_module_would_have_drawn_itself(kind: str) -> None:
    def drawn(part: nn.Module) -> list[Tensor]:
        with use_generator(keyed_generator(3, "a draw")):
            return [value for _, value in fresh(part)]

    part, other = copy.deepcopy(PARTS[kind]), copy.deepcopy(PARTS[kind])
    with use_generator(keyed_generator(3, "a draw")):
        (other._reset_parameters if isinstance(other, nn.MultiheadAttention) else other.reset_parameters)()  # type: ignore[operator]
    for value, wanted in zip(drawn(part), (*other.parameters(), *other.buffers()), strict=True):
        assert torch.equal(value, wanted)
