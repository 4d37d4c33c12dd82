"""The diagonal Fisher information of the pre-trained network at its weights w0, as L2-SP-Fisher and GL-SP-Fisher take it.

Li, Grandvalet, Davoine, ICML 2018 (arXiv 1802.01483), section 3; with m samples and the network's own probabilities p,

    F_j = 1/m * sum_i sum_k p_k(x_i) * (d log p_k(x_i) / d w_j)^2.

Three estimates: "expected" is the sum as it stands, a backward pass a class; "sampled" draws one class from p for each
sample; "empirical" takes the true label, which is biased. Gradients are those of single samples: squaring their mean would
let gradients of opposite sign cancel.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import log_softmax, one_hot

from rekindle.errors import number_of
from rekindle.method import DataPasses, Net, PassOverData, Source, noop, require
from rekindle.methods._math import wide
from rekindle.models.structure import logits
from rekindle.rng import uniform

Estimate = Literal["auto", "expected", "sampled", "empirical"]
Normalization = Literal["none", "mean"]
Stabilizer = Literal["add", "clip"]
MANY_CLASSES = 100  # With more of them "auto" samples.
MEMORY = 2**27  # Numbers that the gradients of single samples may take at once: half a gigabyte in float32.

Weights = dict[str, Tensor]


def log_probabilities(model: nn.Module, weights: Weights, x: Tensor) -> Tensor:
    """(B, C) log p of a batch (B, ...) under other values of some of the weights, in float32 or better."""
    return log_softmax(wide(logits(functional_call(model, weights, (x,)))), dim=1)


class Squares:
    """Squared gradients of log-probabilities, of single samples, summed over a batch.

    Samples go through `vmap` in chunks. Its rules are not right for every network: with torch 2.15 the backward pass of
    BatchNorm in evaluation mode is silently wrong under some memory layouts (XCiT). So the first chunk of each layout is
    compared with a single sample by itself, and where they differ, or `vmap` cannot do it, every sample goes by itself.

    Args:
        model: Gives logits, in evaluation mode.
        weights: What to differentiate by, {name: tensor}.
        memory: Numbers that the gradients of a chunk may take.
    """

    def __init__(self, model: nn.Module, weights: Weights, memory: int) -> None:
        self._model, self._weights = model, weights
        self._chunk = max(1, memory // max(1, sum(w.numel() for w in weights.values())))
        self._trusted: dict[Any, bool] = {}

    def expected(self, x: Tensor) -> Weights:
        """Sum over samples x (B, ...) and classes of p_k * (d log p_k / d w)^2, by weight."""
        return self._summed(self._expected, x)

    def labeled(self, x: Tensor, labels: Tensor) -> Weights:
        """Sum over samples x (B, ...) with labels (B,) of (d log p_label / d w)^2, by weight."""
        return self._summed(self._labelled, x, labels)

    def _expected(self, sample: Tensor) -> Weights:
        log_p, pull = self._pull(sample)
        total = self._zeros()
        for k, unit in enumerate(torch.eye(len(log_p), dtype=log_p.dtype, device=log_p.device)):
            (found,) = pull(unit)
            total = {name: total[name] + log_p[k].exp() * _square(g) for name, g in found.items()}
        return total

    def _labelled(self, sample: Tensor, label: Tensor) -> Weights:
        log_p, pull = self._pull(sample)
        (found,) = pull(one_hot(label, len(log_p)).to(log_p.dtype))
        return {name: _square(g) for name, g in found.items()}

    def _zeros(self) -> Weights:
        return {name: torch.zeros_like(w, dtype=torch.promote_types(w.dtype, torch.float32)) for name, w in self._weights.items()}

    def _pull(self, sample: Tensor) -> tuple[Tensor, Callable[[Tensor], tuple[Weights]]]:
        """(C,) log p of one sample, and the map from weights of classes to the gradient."""
        log_p, pull = vjp(lambda w: log_probabilities(self._model, w, sample.unsqueeze(0))[0], self._weights)  # type: ignore[misc]
        return log_p, pull

    def _summed(self, one: Callable[..., Weights], *samples: Tensor) -> Weights:
        total = self._zeros()
        for part in zip(*(tensor.split(self._chunk) for tensor in samples), strict=True):
            for squares in self._of_chunk(one, part):
                for name, tensor in squares.items():
                    total[name] += tensor
        return total

    def _of_chunk(self, one: Callable[..., Weights], part: Sequence[Tensor]) -> Iterator[Weights]:
        layout = (one.__name__, part[0].shape, part[0].stride())
        together = self._together(one, part) if self._trusted.get(layout, True) else None
        if together is not None and layout not in self._trusted:
            last = {name: squares[-1] for name, squares in together.items()}
            together = together if agree(one(*(tensor[-1] for tensor in part)), last) else None
        self._trusted[layout] = together is not None
        if together is not None:
            yield {name: squares.sum(0) for name, squares in together.items()}
        else:
            yield from (one(*sample) for sample in zip(*part, strict=True))

    def _together(self, one: Callable[..., Weights], part: Sequence[Tensor]) -> Weights | None:
        try:
            with sdpa_kernel(SDPBackend.MATH):  # The only kernel of attention that vmap has rules for.
                found: Weights = vmap(one)(*part)
        except RuntimeError:  # The network branches on values, or writes in place, or the chunk is too large for the device.
            return None
        return found


def _square(gradient: Tensor) -> Tensor:
    """In float32 or better: in float16 the square of a small gradient is 0."""
    return wide(gradient).square()


def agree(found: Weights, other: Weights) -> bool:
    """Whether squares are equal up to rounding, tensor by tensor; gradients that are rounding alone do not count."""
    scale = max(float(tensor.norm()) for tensor in found.values())
    return all(float((found[name] - other[name]).norm()) <= 0.05 * float(found[name].norm()) + 1e-9 * scale for name in found)


def drawn_labels(log_p: Tensor, start: int, seed: int) -> Tensor:
    """(B,) one class from each row of probabilities, keyed by the position of the sample: batches of any size draw the same.

    Args:
        log_p: (B, C) logarithms of probabilities.
        start: Position of the first row in the pass.
        seed: The run's.
    """
    chances = torch.from_numpy(uniform(np.arange(start, start + len(log_p)), 1, seed, "fisher"))
    cumulative = log_p.double().cpu().exp().cumsum(1)
    return torch.searchsorted(cumulative / cumulative[:, -1:], chances, right=True)[:, 0].to(log_p.device)


def diagonal_fisher(
    model: nn.Module, names: Sequence[str], batches: Iterable[tuple[Tensor, Tensor]], estimate: Estimate, seed: int = 0,
    done: Callable[[int], None] = noop,
) -> Weights:  # fmt: skip
    """Estimate F of the named parameters.

    Args:
        model: Gives logits, or an object that holds them as `logits`; in evaluation mode.
        names: Of its parameters.
        batches: (inputs, labels) pairs.
        estimate: "expected", "sampled" or "empirical".
        seed: Key of the draws of "sampled".
        done: Told how many samples have been through.

    Returns:
        {name: tensor of the parameter's shape, at least 0}.

    Raises:
        ValueError: If the model is in training mode, there is no sample, or an empirical label is no class of the model.
    """
    require(not any(module.training for module in model.modules()), "fisher: the network must be in evaluation mode.")
    parameters = dict(model.named_parameters())
    squares = Squares(model, {name: parameters[name].detach() for name in names}, MEMORY)
    total: Weights = {}
    count = 0
    for x, y in batches:
        with torch.autocast(x.device.type, enabled=False), torch.no_grad():  # vjp keeps its own graphs.
            labels = None if estimate == "expected" else _labels(model, x, y, estimate, count, seed)
            found = squares.expected(x) if labels is None else squares.labeled(x, labels)
        total = {name: total[name] + tensor for name, tensor in found.items()} if total else found
        count += len(x)
        done(count)
    require(count > 0, "fisher: there is no sample to estimate from.")
    return {name: tensor / count for name, tensor in total.items()}


def _labels(model: nn.Module, x: Tensor, y: Tensor, estimate: Estimate, start: int, seed: int) -> Tensor:
    log_p = log_probabilities(model, {}, x)
    if estimate == "sampled":
        return drawn_labels(log_p, start, seed)
    classes = log_p.shape[1]
    require(
        0 <= int(y.min()) and int(y.max()) < classes,
        f"fisher: a label is outside the source's {number_of(classes, 'class')} (0 to {classes - 1}).",
    )
    return y


def check_fisher(fisher: Weights) -> None:
    """Refuse information that is negative or not finite: as a weight of squares it would push away from w0."""
    for name, tensor in fisher.items():
        ok = bool(((tensor >= 0) & torch.isfinite(tensor)).all())
        require(ok, f"fisher: the information of {name} must be finite and at least 0.")


def normalized(fisher: Weights, how: Normalization) -> Weights:
    """ "none": as it is; "mean": divided by the mean over all weights, so that alpha has the scale of L2-SP's."""
    if how == "none":
        return fisher
    mean = sum(float(tensor.double().sum()) for tensor in fisher.values()) / sum(tensor.numel() for tensor in fisher.values())
    require(mean > 0, "fisher: the information is zero everywhere, so it has no mean to be divided by.")
    return {name: tensor / mean for name, tensor in fisher.items()}


def stabilized(fisher: Weights, how: Stabilizer, eps: float) -> Weights:
    """ "add": F + eps; "clip": min(F, eps)."""
    return {name: tensor + eps if how == "add" else tensor.clamp_max(eps) for name, tensor in fisher.items()}


class Information:
    """The Fisher information of a network's shared parameters, and where it comes from; zeros until estimated or loaded.

    Args:
        owner: The method's name, for messages.
        net: The network.
        source: The pre-trained network.
        names: Of the parameters, here.
        like: Tensors of their shapes.

    Attributes:
        tensors: F, one tensor a parameter, changed in place.
    """

    def __init__(self, owner: str, net: Net, source: Source, names: list[str], like: list[Tensor]) -> None:
        require(bool(net.classifier), f"{owner}: the source has no single classifier, so it gives no probabilities to differentiate.")
        self.tensors = [torch.zeros_like(tensor) for tensor in like]
        self.name, self._net, self._source, self._names = owner, net, source, names
        self._untrained = classifier_is_new(net, source)

    def estimate_(
        self,
        data: DataPasses,
        estimate: Estimate = "auto",
        normalize: Normalization = "none",
        stabilizer: Stabilizer = "add",
        eps: float = 0.0,
    ) -> None:
        """Estimate from the source's data, or from the target's through the source's classifier; the cost is told first.

        Raises:
            ValueError: If "empirical" is asked for without the source's data, or the estimate is negative or not finite.
        """
        known = estimate != "empirical" or data.source is not None
        require(
            known,
            f'{self.name}: estimate="empirical" needs data of the source (--source-data FOLDER); the training set has labels of other '
            "classes than the source's.",
        )
        self._say_where_from(data)
        passes = data.target if data.source is None else data.source
        total, classes = survey(self._source.model, passes)
        require(classes >= 2, f"{self.name}: the source tells {classes} class apart; the Fisher information needs at least 2.")
        if estimate == "auto":
            estimate = "expected" if classes <= MANY_CLASSES else "sampled"
        self._say_cost(data, estimate, total, classes)
        names = sorted({self._net.source_names[name] for name in self._names})
        what = f"{self.name}: Fisher information"
        found = diagonal_fisher(
            self._source.model, names, passes(), estimate, self._net.seed, lambda count: data.progress(what, count, total)
        )
        check_fisher(found)
        found = stabilized(normalized(found, normalize), stabilizer, eps)
        self._set({name: found[self._net.source_names[name]] for name in self._names})

    def state_dict(self) -> dict[str, Any]:
        """F by parameter name."""
        return {"fisher": dict(zip(self._names, self.tensors, strict=True))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put F back, in place.

        Raises:
            ValueError: If it is negative or not finite.
        """
        check_fisher(state["fisher"])
        self._set(state["fisher"])

    def _set(self, fisher: Weights) -> None:
        for name, tensor in zip(self._names, self.tensors, strict=True):
            tensor.copy_(fisher[name])

    def _say_where_from(self, data: DataPasses) -> None:
        if data.source is None:
            data.note(
                f"{self.name}: there is no data of the source, so the Fisher information is estimated on the training images through "
                "the source's own classifier: a surrogate for that on its own data (--source-data FOLDER)."
            )
        if self._untrained:
            data.note(f"{self.name}: the source's classifier is the new, untrained one; give the tuner the pre-trained network as source.")

    def _say_cost(self, data: DataPasses, estimate: Estimate, total: int, classes: int) -> None:
        size = sum(tensor.numel() for tensor in self.tensors)
        backward = number_of(classes if estimate == "expected" else 1, "backward pass")
        cost = f"takes {backward} for each of {total:,} images, before training starts"
        data.note(f"{self.name}: the {estimate} Fisher information of {size:,} weights {cost}.")


def survey(model: nn.Module, passes: PassOverData) -> tuple[int, int]:
    """Samples in a pass, and the number of classes that the model gives logits for."""
    total, classes = 0, 0
    for x, _ in passes():
        if not total:
            with torch.no_grad():
                classes = log_probabilities(model, {}, x[:1]).shape[1]
        total += len(x)
    require(total > 0, "fisher: there is no sample to estimate from.")
    return total, classes


def classifier_is_new(net: Net, source: Source) -> bool:
    """Whether the source is a copy of the network itself, whose classifier has just been drawn for other classes."""
    mine = {name: p for name, p in net.parameters().items() if name.startswith(f"{net.classifier}.")}
    equal = [name not in net.source_names and _same(p, source.tensors.get(name)) for name, p in mine.items()]
    return bool(equal) and all(equal)


def _same(parameter: Tensor, other: Tensor | None) -> bool:
    return other is not None and other.shape == parameter.shape and torch.equal(parameter.detach().cpu().to(other.dtype), other.cpu())
