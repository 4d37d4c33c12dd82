"""The oracle experiment of the RIFLE paper (Li et al., ICML 2020, section 4.6.2): does a restart bring deep weights nearer the truth?

Two teachers h1(X) = W2' relu(W1' X) and h2(X) = W3' relu(W1' X) share their first layer. A network of their shape learns h1 from noisy
samples, gets a fresh head and is fine-tuned on noisy samples of h2. Measured are its error against h2, and how far its first layer
is from W1 by optimal transport.

What the paper leaves open is a setting here. The teachers' weights follow the law of `nn.Linear`, U(-1, 1) / sqrt(inputs), since the
published errors are too small for standard normal ones. The paper's "noise N(0, 0.01)" is read both ways, as a standard deviation of
0.1 and of 0.01. The test labels bear no noise: with a variance of 0.01 in them no model could reach the published error of 0.004.

All seeds train at once, as one network of many independent parts: loss, penalties, SGD and head draws act on each part alone.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rekindle.errors import UserError
from rekindle.method import Method, Source, noop
from rekindle.methods.penalties.l2 import L2
from rekindle.methods.restarts.rifle import Rifle
from rekindle.oracle.settings import OracleSettings
from rekindle.rng import keyed_generator, use_generator
from rekindle.tuner import Tuner

SOURCE_RATE = 0.05
EVALUATION = 1000


METHODS: dict[str, Callable[[OracleSettings], list[Method]]] = {
    "L2": lambda s: [L2(alpha=s.alpha)],
    "RIFLE": lambda s: [L2(alpha=s.alpha), Rifle(periods=s.periods, scale=1.0)],
    "RIFLE-A": lambda s: [L2(alpha=s.alpha), Rifle(periods=s.periods, cycle="none", scale=1.0)],
}


class Layers(nn.Module):
    """S linear layers without bias side by side: (S, B, inputs) to (S, B, outputs)."""

    def __init__(self, count: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.in_features = inputs
        self.weight = nn.Parameter(torch.empty(count, inputs, outputs))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all from the law of `nn.Linear`."""
        bound = self.in_features**-0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Each layer acts on inputs of its own."""
        return torch.bmm(x, self.weight)


class Networks(nn.Module):
    """S networks of one hidden layer: (S, B, inputs) to (S, B)."""

    def __init__(self, count: int, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = Layers(count, inputs, hidden)
        self.head = Layers(count, hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """relu between the layers."""
        outputs: Tensor = self.head(torch.relu(self.hidden(x)))
        return outputs.squeeze(2)


def squared_error(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error of each network, (S, B) to a sum over networks, so that each gets the gradient of its own mean.

    Returns:
        A scalar with its graph.
    """
    return (outputs - labels).square().mean(1).sum()


def run_oracle(settings: OracleSettings, progress: Callable[[str, int, int], None] = noop) -> list[dict[str, Any]]:
    """Run every cell.

    Args:
        settings: What to run.
        progress: Told (what, done, total).

    Returns:
        One row for each noise, learning rate, method and seed: test_mse (against the teacher, without noise), val_mse (on noisy
        samples, to choose by), train_mse, transport_columns (of W1, one point a hidden unit; a permutation of units changes
        neither it nor the function) and transport_rows (one point an input); None where the training diverged. Rows of the
        method "source" hold the transport of the first layer that the fine-tuning starts from.
    """
    seeds = range(settings.seeds)
    first, second = _teachers(settings)
    rows: list[dict[str, Any]] = []
    total, done = len(settings.noises) * (1 + len(settings.rates) * len(METHODS)), 0
    for noise in settings.noises:
        source = _networks(settings, "student")
        train(source, [L2(alpha=settings.alpha)], *_samples(settings, first, "source", noise), SOURCE_RATE, settings)
        frozen = Source(source)
        cells: list[tuple[float | None, str, list[Method]]] = [(None, "source", [])]
        cells += [(rate, name, make(settings)) for rate in settings.rates for name, make in METHODS.items()]
        for rate, name, methods in cells:
            model = copy.deepcopy(source)
            if rate is not None:
                model.head = _networks(settings, "fresh").head
                train(model, methods, *_samples(settings, second, "train", noise), rate, settings, frozen)
            found = _transports(model, second) | (_errors(settings, model, second, noise) if rate is not None else {})
            rows += [
                {"noise": noise, "rate": rate, "method": name, "seed": seed, **{key: _finite(value[seed]) for key, value in found.items()}}
                for seed in seeds
            ]
            done += 1
            progress("oracle experiment", done, total)
    return rows


def train(
    model: nn.Module, methods: list[Method], x: Tensor, y: Tensor, rate: float, settings: OracleSettings, source: Source | None = None,
    seeds: list[int] | None = None,
) -> None:  # fmt: skip
    """The plain loop of the documentation, each network on batches of its own.

    Args:
        model: `Networks`, in place.
        methods: Of the tuner.
        x: (S, N, inputs).
        y: (S, N).
        rate: Base learning rate; it falls along a cosine where no method says otherwise.
        settings: Epochs, batch size, momentum.
        source: The pre-trained networks.
        seeds: Keys of the S orders; None counts from 0.
    """
    seeds = seeds or list(range(len(x)))
    steps = -(-x.shape[1] // settings.batch_size)
    tuner = Tuner(model, methods, source=source, head="head", epochs=settings.epochs, steps_per_epoch=steps)
    optimizer = torch.optim.SGD(tuner.param_groups(lr=rate), momentum=settings.momentum)
    scheduler = tuner.scheduler(optimizer)
    which = torch.arange(len(x))[:, None]
    for epoch in range(tuner.epochs):
        tuner.start_epoch(epoch)
        order = torch.stack([torch.randperm(x.shape[1], generator=keyed_generator(seed, "order", epoch)) for seed in seeds])
        for rows in order.split(settings.batch_size, dim=1):
            tuner.loss(model, x[which, rows], y[which, rows], squared_error).backward()
            tuner.gradients_()
            optimizer.step()
            optimizer.zero_grad()
        scheduler.step()


def transport(points: Tensor, others: Tensor) -> float:
    """Optimal transport between two clouds of equally heavy points, (n, k) each, at squared Euclidean cost.

    Returns:
        A squared distance, 0 or more.

    Raises:
        UserError: If POT is not installed.
    """
    try:
        import ot
    except ImportError:
        raise UserError("the transport distance needs POT; install it with: pip install 'rekindle[study]'") from None

    one, other = points.double().numpy(), others.double().numpy()
    return float(ot.emd2(ot.unif(len(one)), ot.unif(len(other)), ot.dist(one, other, metric="sqeuclidean")))


def _networks(settings: OracleSettings, name: str) -> Networks:
    """One network a seed, each drawn from a key of its own, so that more seeds do not change the first ones."""
    networks = Networks(settings.seeds, settings.inputs, settings.hidden)
    for seed in range(settings.seeds):
        with use_generator(keyed_generator(seed, "mlp_oracle", name)), torch.no_grad():
            one = Networks(1, settings.inputs, settings.hidden)
            networks.hidden.weight[seed], networks.head.weight[seed] = one.hidden.weight[0], one.head.weight[0]
    return networks


def _teachers(settings: OracleSettings) -> tuple[Networks, Networks]:
    first, second = _networks(settings, "h1").requires_grad_(False), _networks(settings, "h2").requires_grad_(False)
    second.hidden = first.hidden
    return first, second


def _samples(settings: OracleSettings, teacher: Networks, name: str, noise: float) -> tuple[Tensor, Tensor]:
    """(S, N, inputs) standard normal and (S, N) labels; other noise means the same draws on another scale."""
    count = settings.samples if name in ("source", "train") else EVALUATION
    streams = [keyed_generator(seed, "mlp_oracle", name) for seed in range(settings.seeds)]
    drawn = torch.stack([torch.randn(count, settings.inputs + 1, generator=stream) for stream in streams])
    x = drawn[..., :-1].contiguous()
    return x, teacher(x) + noise * drawn[..., -1]


@torch.no_grad()
def _errors(settings: OracleSettings, model: Networks, teacher: Networks, noise: float) -> dict[str, list[float]]:
    """Mean squared error of each network on each set."""
    found = {}
    for key, name, spread in (("test_mse", "test", 0.0), ("val_mse", "val", noise), ("train_mse", "train", noise)):
        x, y = _samples(settings, teacher, name, spread)
        found[key] = (model(x) - y).double().square().mean(1).tolist()
    return found


def _transports(model: Networks, teacher: Networks) -> dict[str, list[float]]:
    pairs = list(zip(model.hidden.weight.detach(), teacher.hidden.weight, strict=True))
    whole = [bool(torch.isfinite(weight).all()) for weight, _ in pairs]
    return {
        "transport_columns": [transport(w.T, truth.T) if ok else float("nan") for (w, truth), ok in zip(pairs, whole, strict=True)],
        "transport_rows": [transport(w, truth) if ok else float("nan") for (w, truth), ok in zip(pairs, whole, strict=True)],
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
