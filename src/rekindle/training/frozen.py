"""What lies before the first trainable layer gives the same for the same picture each time, so it is computed once.

The network is run as it is and knows nothing of it: on a batch of no pictures up to the boundary, where a hook puts stored activations
in the place of the empty output. Another layer that reads the pictures, or what came before the boundary, then fails on unequal sizes,
which is tried out before anything is stored.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rekindle.data.prefetch import prefetch
from rekindle.method import noop
from rekindle.methods.layer_wise.freeze_batchnorm import leave_training
from rekindle.models.structure import logits
from rekindle.rng import gpus_in_use

LIMIT = 2**30  # Bytes of activations that a run stores at the most, the same on each machine, since storing may change a last bit.
CHUNK = 64  # Pictures computed together, always the same ones, so that a resumed run stores the same bits.
CLOSE = 1e-2  # Relative difference that is rounding: in evaluation mode torch computes attention another way.
CANDIDATES = 16  # Layers that are tried as the boundary: those inside a residual block do not stand for its shortcut.
TRIED = 4  # Pictures on which the boundary is looked for: more than the one that a sum would spread over a batch.

Run = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Boundary:
    """The last layer of the frozen part.

    Attributes:
        name: Of the module.
        module: Called once in a forward pass; all that comes after it reads its output, and nothing from before.
        before: What ended before it, and itself.
        shape: Of one picture's activation.
        dtype: Of it.
        channels_last: Whether it is (C, H, W) with the channels last in memory.
    """

    name: str
    module: nn.Module
    before: tuple[nn.Module, ...]
    shape: tuple[int, ...]
    dtype: torch.dtype
    channels_last: bool

    @property
    def size(self) -> int:
        """Bytes of one picture's activation."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def reach(self, run: Run, x: Tensor) -> Tensor:
        """(B, ...) activations of pictures (B, ...): the forward pass ends here.

        Returns:
            (B, ...), without a graph.
        """
        kept: list[Tensor] = []

        def stop(module: nn.Module, inputs: Any, output: Tensor) -> None:
            kept.append(output.detach())
            raise _Reached

        handle = self.module.register_forward_hook(stop)
        try:
            with torch.no_grad():
                run(x)
        except _Reached:
            return kept[0]
        finally:
            handle.remove()
        raise RuntimeError(f"the forward pass did not reach {self.name}")

    def go_on(self, run: Run, activations: Tensor, empty: Tensor) -> Any:
        """What the network says of (B, ...) activations; `empty` is a batch of no pictures.

        Returns:
            What the network returns.
        """
        handle = self.module.register_forward_hook(lambda *_: activations)
        try:
            return run(empty)
        finally:
            handle.remove()


class _Reached(Exception):
    """Ends a forward pass at the boundary."""


class Stored:
    """Activations of a set of pictures.

    Args:
        boundary: Where they were taken.
        count: How many pictures there are.
        device: Where they are kept.
    """

    def __init__(self, boundary: Boundary, count: int, device: torch.device) -> None:
        channels, *space = boundary.shape
        self._turned = boundary.channels_last
        shape = (*space, channels) if self._turned else boundary.shape
        self._values = torch.empty((count, *shape), dtype=boundary.dtype, device=device)

    def put(self, first: int, activations: Tensor) -> None:
        """Keep those of the pictures from `first` on."""
        self._values[first : first + len(activations)] = activations.permute(0, 2, 3, 1) if self._turned else activations

    def take(self, rows: Tensor) -> Tensor:
        """A copy of those of some pictures, laid out as the network did.

        Returns:
            (B, ...) on the device that they are stored on.
        """
        values = self._values[rows.to(self._values.device, non_blocking=True)]
        return values.permute(0, 3, 1, 2) if self._turned else values


class FrozenPart:
    """The frozen part of a network in training, and what it gave of pictures that are seen again.

    Args:
        run: Calls the network as the training does.
        module: The bare network.
        device: Where it is.
        note: Told, in a sentence, what is computed once.
    """

    def __init__(self, run: Run, module: nn.Module, device: torch.device, note: Callable[[str], object] = noop) -> None:
        self._run, self._module, self._device, self._note = run, module, device, note
        self._boundary: Boundary | None = None
        self._weights: dict[str, Tensor] = {}
        self._sets: dict[str, Stored] = {}
        self._planned: set[str] = set()

    def look(self, pictures: Callable[[int], Tensor], counts: dict[str, int]) -> bool:
        """Find the boundary, unless all that was frozen at the last call still is, and is the same.

        Args:
            pictures: Gives so many pictures (B, 3, S, S) on the device, to try the network on.
            counts: {set of pictures: how many activations it has}, those that are worth most first; sets that go beyond `LIMIT` are left out.

        Returns:
            Whether there is a boundary that was not there, or not the same, at the last call.
        """
        if self._is_unchanged():
            return False
        self._boundary, self._sets, self._planned = None, {}, set()
        if any(not p.requires_grad for p in self._module.parameters()):
            x = pictures(TRIED)
            self._empty, self._boundary = x[:0], find_boundary(self._run, self._module, x)
        self._weights = {name: value.clone() for name, value in self._frozen().items()}
        if self._boundary is not None and counts:
            self._plan(self._boundary, counts)
        return self._boundary is not None

    def stored(
        self, group: str, name: str, count: int, read: Callable[[Tensor], Tensor], workers: int = 0, *, training: bool
    ) -> Stored | None:
        """The activations of a set of pictures, computed at the first call; None where they are not to be stored.

        Args:
            group: The set's name in the counts that `look` was given.
            name: Of the pictures within the set, such as one of its views.
            count: How many pictures those are.
            read: Gives the pictures of some rows, (B,) int64, on the device.
            workers: Threads that read ahead.
            training: Whether the network is to be in training mode for them, or in evaluation mode.

        Returns:
            The stored activations, or None.
        """
        if self._boundary is None or group not in self._planned:
            return None
        key = f"{group}/{name}"
        if key not in self._sets:
            found, before = Stored(self._boundary, count, self._device), self._module.training
            self._module.train(training)
            with closing(prefetch(read, torch.arange(count).split(CHUNK), workers)) as feed:
                for number, x in enumerate(feed):
                    found.put(number * CHUNK, self._boundary.reach(self._run, x))
            self._module.train(before)
            self._sets[key] = found
        return self._sets[key]

    def go_on(self, activations: Tensor) -> Any:
        """What the network says of stored activations.

        Returns:
            What the network returns.
        """
        assert self._boundary is not None
        return self._boundary.go_on(self._run, activations, self._empty)

    def _plan(self, boundary: Boundary, counts: dict[str, int]) -> None:
        """Choose the sets that fit, and say so."""
        left, out = LIMIT, []
        for group, count in counts.items():
            if count * boundary.size <= left:
                left -= count * boundary.size
                self._planned.add(group)
            else:
                out.append(group)
        stored = [f"{counts[group]} {group}" for group in counts if group in self._planned]
        beyond = f"those of {' and '.join(out)} would take more than the {LIMIT >> 20} MiB that a run stores"
        if stored:
            size = f"{(LIMIT - left) / 2**20:.1f} MiB"
            text = f"the frozen layers up to {boundary.name} are computed once for {' and '.join(stored)}, {size}"
            self._note(f"{text}; {beyond}." if out else f"{text}.")
        else:
            self._note(f"the activations of the frozen layers up to {boundary.name} are computed each time: {beyond}.")

    def _is_unchanged(self) -> bool:
        now = self._frozen()
        return bool(now) and now.keys() == self._weights.keys() and all(torch.equal(now[name], self._weights[name]) for name in now)

    def _frozen(self) -> dict[str, Tensor]:
        """Parameters that do not train, and buffers of the layers up to the boundary."""
        fixed = {name: p.detach() for name, p in self._module.named_parameters() if not p.requires_grad}
        before = () if self._boundary is None else self._boundary.before
        return fixed | {
            f"{number} {name}": buffer for number, part in enumerate(before) for name, buffer in part.named_buffers(recurse=False)
        }


def find_boundary(run: Run, module: nn.Module, x: Tensor) -> Boundary | None:
    """The last layer before the first trainable one whose output stands for all that lies before it.

    None where nothing is frozen, where the frozen part draws, follows its batches or is watched by hooks, or where later layers read
    something else than that output. The network is left as it was.

    Args:
        run: Calls the network as the training does.
        module: The bare network.
        x: At least two pictures, on its device.

    Returns:
        The boundary, or None.
    """
    with _untouched(module):
        try:
            module.train()
            with torch.enable_grad(), _watched(module) as seen:
                run(x)
            found = itertools.islice(seen.candidates(len(x)), CANDIDATES)
            return next((boundary for boundary in found if _stands_for_all(boundary, run, module, x)), None)
        except Exception:  # noqa: BLE001  Networks are anybody's code; where this fails, nothing is stored.
            return None


def _stands_for_all(boundary: Boundary, run: Run, module: nn.Module, x: Tensor) -> bool:
    """Whether the frozen part does the same in training as in evaluation, and for a picture alone as in a batch, and the network goes on
    from its output to the same bits."""
    module.train()
    trained = boundary.reach(run, x)
    module.eval()
    with torch.no_grad():
        found, few, whole = boundary.reach(run, x), boundary.reach(run, x[:2]), logits(run(x))
        try:
            rest = logits(boundary.go_on(run, found.clone(), x[:0]))  # What comes next may write over it.
        except RuntimeError:  # Sizes do not fit: something else is read, too.
            return False
    return _are_close(trained, found) and _are_close(few, found[:2]) and torch.equal(whole, rest)


def _are_close(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and bool((one.double() - other.double()).norm() <= CLOSE * other.double().norm())


class _Watch:
    """What a forward pass showed: the layers in the order in which they ended, up to the first that is not frozen."""

    def __init__(self, module: nn.Module) -> None:
        self.calls: Counter[str] = Counter()
        self._ended: list[tuple[str, nn.Module, Any]] = []
        self._open = True
        self._random = _random_states()
        self._versions = {id(buffer): buffer._version for buffer in module.buffers()}

    def see(self, name: str, module: nn.Module, output: Any) -> None:
        self.calls[name] += 1
        self._open = self._open and self._is_frozen(module, output)
        if self._open:
            kept = output.detach()[:2] if isinstance(output, Tensor) and output.ndim and len(output) > 1 else None
            self._ended.append((name, module, None if kept is None else (len(output), kept)))

    def candidates(self, count: int) -> Iterator[Boundary]:
        """Those of them that were called once and gave a tensor of so many pictures, the last one first."""
        for number, (name, module, kept) in reversed(list(enumerate(self._ended))):
            if self.calls[name] == 1 and kept is not None and kept[0] == count:
                like: Tensor = kept[1]
                last = like.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last) and not like.is_contiguous()
                before = tuple(part for _, part, _ in self._ended[: number + 1])
                yield Boundary(name, module, before, tuple(like.shape[1:]), like.dtype, last)

    def _is_frozen(self, module: nn.Module, output: Any) -> bool:
        """Whether an output hangs on no trainable parameter, on no draw and on no statistics of the batch, and nobody else looks at it."""
        hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
        if any(hook is not leave_training and not isinstance(hook, _See) for hook in hooks):
            return False
        if any(p.requires_grad for p in module.parameters(recurse=False)):  # A network may call it without gradients, and decay moves it.
            return False
        if any(self._versions[id(buffer)] != buffer._version for buffer in module.buffers(recurse=False)):
            return False
        return not _needs_gradient(output) and all(torch.equal(*pair) for pair in zip(self._random, _random_states(), strict=True))


class _See:
    """The hook of `_Watch`, which is told from others by its class."""

    def __init__(self, name: str, watch: _Watch) -> None:
        self._name, self._watch = name, watch

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._watch.see(self._name, module, output)


@contextmanager
def _watched(module: nn.Module) -> Iterator[_Watch]:
    watch = _Watch(module)
    handles = [part.register_forward_hook(_See(name, watch)) for name, part in module.named_modules() if name]
    try:
        yield watch
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _untouched(module: nn.Module) -> Iterator[None]:
    """Put modes, buffers and the state of random draws back."""
    modes = {part: part.training for part in module.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    with torch.random.fork_rng(devices=gpus_in_use()):
        try:
            yield
        finally:
            for part, mode in modes.items():
                part.training = mode
            for buffer, kept in buffers:
                buffer.copy_(kept)


def _needs_gradient(output: Any) -> bool:
    """Whether anything in an output needs a gradient; what is no tensor, nor a collection of them, counts as if it did."""
    if isinstance(output, Tensor):
        return output.requires_grad
    if isinstance(output, tuple | list):
        return any(map(_needs_gradient, output))
    return not isinstance(output, int | float | None)


def _random_states() -> list[Tensor]:
    return [torch.get_rng_state(), *map(torch.cuda.get_rng_state, gpus_in_use())]
