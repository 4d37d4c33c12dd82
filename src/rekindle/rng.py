"""Random numbers whose value depends on a key alone: not on rank, worker, batch size or what ran before.

So resume and many ranks need no stored generator state.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def keyed_generator(*key: int | str) -> torch.Generator:
    """Make a generator whose stream depends on `key` alone.

    Args:
        key: What is drawn and when, such as ``(seed, "rifle", epoch)``. A draw for weights must not name the rank.

    Returns:
        A generator on the CPU, equal for equal keys on every machine.

    Examples:
        >>> bool(torch.rand((), generator=keyed_generator(0, "a")) == torch.rand((), generator=keyed_generator(0, "a")))
        True
    """
    digest = hashlib.blake2b("\x1f".join(map(str, key)).encode(), digest_size=8).digest()
    made = torch.Generator()
    made.manual_seed(int.from_bytes(digest, "little") >> 1)
    return made


@contextmanager
def use_generator(stream: torch.Generator) -> Iterator[None]:
    """Let a framework's initialiser, which knows the global generator of the CPU alone, draw from `stream`; then put it back.

    Yields:
        Nothing.
    """
    seed = int(torch.randint(2**62, (), generator=stream))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def splitmix64(counters: np.ndarray) -> np.ndarray:
    """The outputs of SplitMix64 with seed 0 at these positions, uint64 from uint64: a stream that can be read anywhere.

    Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. A `torch.Generator` for each sample
    would cost more than what is drawn for it.

    Returns:
        uint64, of the shape of the counters.
    """
    with np.errstate(over="ignore"):
        z = (counters + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniform(samples: np.ndarray, draws: int, *key: int | str) -> np.ndarray:
    """(N, draws) float64 in [0, 1) for each of (N,) sample indices, from one stream a key.

    Args:
        samples: Indices of samples, at least 0.
        draws: Numbers a sample.
        key: What is drawn and when, such as ``(seed, "augment", epoch)``.

    Returns:
        (N, draws) float64; equal wherever a sample stands in a batch.
    """
    begin = np.uint64(keyed_generator(*key).initial_seed())
    with np.errstate(over="ignore"):
        counters = begin + samples.astype(np.uint64)[:, None] * np.uint64(draws) + np.arange(draws, dtype=np.uint64)
    return (splitmix64(counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def gpus_in_use() -> list[int]:
    """GPUs whose generators may be drawn from: none before something lies on one, since to ask for their states is to begin with them.

    Returns:
        Their numbers, as `torch.random.fork_rng` takes them.
    """
    return list(range(torch.cuda.device_count())) if torch.cuda.is_available() and torch.cuda.is_initialized() else []


def random_state() -> dict[str, torch.Tensor]:
    """State of torch's default generators, which a network's own dropout draws from.

    Returns:
        States by device, which `torch.set_rng_state` and its like take.
    """
    state = {"cpu": torch.get_rng_state()}
    if gpus_in_use():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, torch.Tensor]) -> None:
    """Put back what `random_state` gave."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
