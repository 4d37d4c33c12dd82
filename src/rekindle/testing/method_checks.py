"""What every method has to stand: trained on a small network in the plain loop of the documentation."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rekindle.errors import UserError
from rekindle.method import Clock, Direction, Method
from rekindle.registry import directions, parse, unparse
from rekindle.testing.network import Loop, batch, data, hybrid
from rekindle.testing.verdict import Skipped, expect

TOLERANCE = 1e-10  # In float64.
STOPS = [(1, 0), (2, 0), (2, 1), (3, 0), (3, 2)]  # (epoch, step) before which runs are stopped.


def check_neutral(kind: type[Method]) -> None:
    """With its neutral settings a run is a plain run, to the bit."""
    if kind.neutral is None:
        raise Skipped("it has no neutral settings")
    plain = _run([])
    wrong = differences(plain, _run([kind(**kind.neutral)]))
    expect(not wrong, f"with {kind.neutral} {wrong} differs from that of a plain run")


def check_recipe(kind: type[Method]) -> None:
    """Its repr and its recipe give an equal object, and it names a paper."""
    method = made(kind)
    reads_back(method, unparse([method]), lambda text: parse(text)[0])


def check_generator(kind: type[Method]) -> None:
    """It draws from keyed generators: outside of forward passes the global one stays as it is."""
    before = torch.get_rng_state()
    loop = Loop([made(kind)], epochs=2)

    def guarded(x: Tensor) -> Tensor:
        with torch.random.fork_rng():
            return loop.model(x)  # type: ignore[no-any-return]

    loop.forward = guarded
    loop.run()
    expect(torch.equal(before, torch.get_rng_state()), "the global generator has moved; draw from clock.generator or rekindle.rng")


def check_keys(kind: type[Method]) -> None:
    """Surgery keeps the names and shapes of weights, apart from the new classifier's own."""
    before, after = hybrid().state_dict(), Loop([made(kind)]).model.state_dict()
    lost = [key for key in before if key not in after and not key.startswith("fc.")]
    expect(not lost, f"the network has lost {', '.join(lost)}")
    changed = [key for key, value in before.items() if key in after and after[key].shape != value.shape]
    expect(not changed, f"{', '.join(changed)} has another shape")


def check_closed_form(kind: type[Method]) -> None:
    """What `gradient` gives is the gradient of `value`, as autograd finds it, in float64."""
    method, clock = made(kind), Clock(0, 8)
    loop = Loop([method], hybrid().double())
    loop.tuner.prepare(data(torch.float64))
    with torch.no_grad():
        for p in loop.model.parameters():
            p.add_(torch.linspace(-1, 1.1, p.numel(), dtype=p.dtype).view_as(p))
    closed = {id(p): g for p, g in method.gradient(clock)}
    value = method.value(clock)
    if value is None or not value.requires_grad:
        expect(not closed, "it has a gradient and no value")
        return
    value.backward()
    for name, p in loop.model.named_parameters():
        found, wanted = closed.get(id(p), torch.zeros_like(p)), torch.zeros_like(p) if p.grad is None else p.grad
        expect(torch.allclose(found, wanted, rtol=0, atol=TOLERANCE), f"they differ in {name} by {float((found - wanted).abs().max()):.1e}")


def check_resume(kind: type[Method]) -> None:
    """A run that is stopped and resumed, within an epoch or between two, ends in the same bits."""
    resumes(lambda model, keep_at: Loop([made(kind)], model, keep_at=keep_at))


def check_accumulation(kind: type[Method]) -> None:
    """The gradients of micro-batches add up to those of the batch."""
    if not kind.splits_batches:
        raise Skipped("it acts on statistics of a whole batch")
    if _draws_in_forward(kind):
        raise Skipped("it draws masks in each forward pass")
    one, two = (Loop([made(kind)], hybrid(norm=False).double(), epochs=2, accumulate=number) for number in (1, 2))
    for loop in (one, two):
        loop.tuner.prepare(data(torch.float64))
        _take_double(loop)
    gap = max(float((a - b).abs().max()) for a, b in zip(one.run().values(), two.run().values(), strict=True))
    expect(gap < TOLERANCE, f"weights differ by {gap:.1e}; set splits_batches = False if that is meant")


def check_copy(kind: type[Method]) -> None:
    """A deep copy of its network trains by itself, as short trials do, and reaches nothing of the network."""
    loop = Loop([made(kind)])
    before = loop.state()
    trial = copy.deepcopy(loop.model).train()
    optimizer = torch.optim.SGD([p for p in trial.parameters() if p.requires_grad], lr=0.1)
    nn.functional.cross_entropy(trial(batch(0)[0]), batch(0)[1]).backward()
    optimizer.step()
    wrong = differences(before, loop.model.state_dict())
    expect(not wrong, f"{wrong} of the network has moved with its copy")
    expect(all(p.grad is None for p in loop.model.parameters()), "the network has gradients of its copy")


def check_directions(kind: type[Method]) -> None:
    """It trains under every direction that it does not refuse, to finite weights."""
    for name, rule in directions().items():
        if name != "plain_sum":
            _train_along(kind, rule())


def check_bad_options(kind: type[Method]) -> None:
    """Each option refuses nonsense, in a sentence that names it."""
    for field in dataclasses.fields(made(kind)):  # type: ignore[arg-type]
        bad = float("nan") if not isinstance(field.default, str) else -7
        try:
            kind(**{field.name: bad})
        except UserError as error:
            expect(f"{field.name} must" in str(error), f"for {field.name}={bad} it says {error}")
        else:
            raise AssertionError(f"it takes {field.name}={bad}; say in the field's annotation what is allowed")


METHOD_CHECKS: list[Callable[[Any], None]] = [
    check_neutral, check_recipe, check_generator, check_keys, check_closed_form, check_resume, check_accumulation, check_copy, check_directions,
    check_bad_options,
]  # fmt: skip


def reads_back(thing: Method | Direction, text: str, read: Callable[[str], object]) -> None:
    """Check that the repr and the recipe of a method or direction give an equal one, and that it says what it is."""
    kind, what = type(thing), "direction" if isinstance(thing, Direction) else "method"
    expect(eval(repr(thing), {kind.__name__: kind}) == thing, f"repr gives {thing!r}, which is another {what}")
    expect(thing.paper and (kind.__doc__ or "").strip(), "it needs a docstring and `paper`, a citation in one line")
    try:
        again = read(text)
    except ValueError as error:
        raise Skipped(f"it is in no list of {what}s; declare it as an entry point of the group rekindle.methods") from error
    expect(again == thing, f"the recipe {text} gives {again!r}")


def resumes(begin: Callable[[nn.Module | None, list[tuple[int, int]]], Loop]) -> None:
    """Check that a run ends in the same bits wherever it was stopped, also in a network that was loaded with other weights.

    Args:
        begin: Makes the loop of a network, or of the usual one, that keeps what a checkpoint would hold before some (epoch, step).
    """
    torch.manual_seed(1)
    loop = begin(None, STOPS)
    whole = loop.run()
    for at, saved in loop.kept.items():
        torch.manual_seed(77)
        other = begin(hybrid(seed=9), [])
        other.load(saved)
        wrong = differences(whole, other.run())
        expect(not wrong, f"resumed before step {at[1]} of epoch {at[0]}, {wrong} differs; what cannot be recomputed belongs in state_dict")


def made(kind: type[Method]) -> Method:
    """One with its example settings.

    Returns:
        A new object.
    """
    return kind(**kind.example)


def differences(one: dict[str, Tensor], other: dict[str, Tensor]) -> str:
    """Names of the first three tensors that are not equal to the bit, or of one network alone; "" where all are.

    Returns:
        Names joined by commas, or "".
    """
    names = [name for name in {**one, **other} if name not in one or name not in other or not torch.equal(one[name], other[name])]
    return ", ".join(names[:3])


def _run(methods: list[Method]) -> dict[str, Tensor]:
    torch.manual_seed(0)  # Masks inside a network come from the global generator.
    return Loop(methods).run()


def _train_along(kind: type[Method], direction: Direction) -> None:
    try:
        loop = Loop([made(kind)], epochs=2, direction=direction)
    except ValueError as refused:
        expect(f"{kind.name} and {direction.name}" in str(refused), f"under {direction.name} it says {refused}")
        return
    expect(all(torch.isfinite(value).all() for value in loop.run().values()), f"under {direction.name} a weight is not finite")
    found = loop.tuner.conflict_stats()
    if any(p.requires_grad for p in loop.tuner.net.shared().values()):  # Else there is nothing to combine.
        expect(found is not None and len(found["cosines"]) == 3, f"under {direction.name} three steps have not noted three cosines")


def _draws_in_forward(kind: type[Method]) -> bool:
    """Whether two forward passes of one batch differ in training: masks differ between micro-batches by design."""
    loop = Loop([made(kind)])
    loop.tuner.prepare(data())
    loop.model.train()
    loop.tuner.start_epoch(0)
    with torch.no_grad():  # Noise may grow with the distance from the start.
        for p in loop.model.parameters():
            p.add_(0.1)
    first, second = (loop.model(batch(0)[0]) for _ in range(2))
    return not torch.equal(first, second)


def _take_double(loop: Loop) -> None:
    """Let the loop's networks take float64 images."""
    loop.model.register_forward_pre_hook(lambda module, inputs: (inputs[0].double(),))
    loop.tuner.source.model.register_forward_pre_hook(lambda module, inputs: (inputs[0].double(),))
