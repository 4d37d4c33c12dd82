"""Penalties on weights beside an adaptive optimiser: decoupled by a closed form, or in the gradient when that is asked for."""

from pathlib import Path

import pytest
import torch
from torch import nn

import rekindle
from rekindle import L2SP, Run, Source, Tuner, UserError
from rekindle.registry import parse_direction
from tests.toys import TINY_RUN, picture_folder, toy, toy_batch

ALPHA, RATE, EPS = 0.3, 0.01, 1e-8


def one_step(decoupled: bool | None) -> tuple[nn.Module, nn.Module, dict[str, torch.Tensor]]:
    """The network before and after its first AdamW step away from the source, and the gradients of the loss."""
    source = toy(seed=1).double()
    model = toy(seed=2).double()
    tuner = Tuner(model, [L2SP(alpha=ALPHA, beta=0.0)], head="fc", source=Source(source), epochs=1, steps_per_epoch=1, decoupled=decoupled)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    before = toy(seed=2).double()
    before.load_state_dict(model.state_dict())
    optimizer = torch.optim.AdamW(tuner.param_groups(lr=RATE), eps=EPS)
    tuner.scheduler(optimizer)
    tuner.start_epoch(0)
    x, y = toy_batch(0)
    tuner.loss(model, x.double(), y, nn.functional.cross_entropy).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    tuner.gradients_()
    optimizer.step()
    return before, model, gradients


@pytest.mark.parametrize("decoupled", [None, True, False])
def test_the_first_step_of_adamw_in_closed_form(decoupled: bool | None) -> None:
    before, after, gradients = one_step(decoupled)
    anchors = dict(toy(seed=1).double().named_parameters())
    for name, w in before.named_parameters():
        pull = 0.0 if name.startswith("fc.") else ALPHA * (w - anchors[name])
        g = gradients[name] + (pull if decoupled is False else 0.0)
        # The first moments of Adam, unbiased, are g and g squared.
        wanted = w - RATE * g / (g.abs() + EPS) - (0.0 if decoupled is False else RATE * pull)
        assert torch.allclose(after.get_parameter(name), wanted, rtol=0, atol=1e-12), name


def test_a_run_says_how_its_penalties_act(tmp_path: Path) -> None:
    data = picture_folder(tmp_path / "data", {"train": 6, "val": 2, "test": 2})
    options = {**TINY_RUN, "method": "l2_sp(alpha=1.0)", "lr": 0.01, "keep": "last"}
    found = {
        kind: rekindle.fit(data, out=tmp_path / kind, optimizer="AdamW", penalties=kind, **options)
        for kind in ("auto", "decoupled", "gradient")
    }
    weights = {kind: rekindle.models.read_model(run.folder) for kind, run in found.items()}
    equal = {kind: all(torch.equal(value, weights["auto"][name]) for name, value in weights[kind].items()) for kind in weights}
    assert equal == {"auto": True, "decoupled": True, "gradient": False}
    assert Run(found["auto"].folder).result["id"] != Run(found["gradient"].folder).result["id"]
    with pytest.raises(UserError, match="leave decoupled, or --penalties decoupled, out"):
        rekindle.fit(data, out=tmp_path / "refused", penalties="decoupled", direction="dtnh", **options)
    with pytest.raises(ValueError, match="leave decoupled"):
        Tuner(toy(), [L2SP()], head="fc", direction=parse_direction("dtnh"), epochs=1, steps_per_epoch=1, decoupled=True)
