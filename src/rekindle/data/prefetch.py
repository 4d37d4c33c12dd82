"""Prepare the next batches while the network computes."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import torch

Item = TypeVar("Item")
Made = TypeVar("Made")


def prefetch(make: Callable[[Item], Made], items: Iterable[Item], workers: int) -> Generator[Made, None, None]:
    """make(item) for each item, in order; close the iterator to stop early.

    Args:
        make: Must depend on its item alone, so that nothing depends on the number of workers. What it raises is raised here, in
            its turn.
        items: Taken as they are needed.
        workers: Threads that work ahead, one item each; 0 makes each item when it is asked for.

    Yields:
        What was made, in the order of the items, whatever the number of workers.
    """
    if workers == 0:
        yield from map(make, items)
        return
    pool = _pool(workers)
    try:
        ahead: deque[Future[Made]] = deque()
        for item in items:
            ahead.append(pool.submit(make, item))
            if len(ahead) > workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def choose_workers(device: torch.device) -> int:
    """Threads that keep a device busy: one beside a network on the processor's cores, up to four beside a GPU, none on a single core.

    Returns:
        A number of threads, 0 or more.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4 if device.type == "cuda" else 1, cores - 1)


def _pool(workers: int) -> ThreadPoolExecutor:
    """Threads in which torch uses one core each.

    Otherwise each would bring a team of threads of its own, and they would push the network's from the cores. Torch keeps the number
    for each thread; one that has not asked for it yet gets the last that was set anywhere, so it is set back when all have begun.
    """
    threads = torch.get_num_threads()
    begun = Barrier(workers + 1)
    pool = ThreadPoolExecutor(workers, "rekindle-data")
    for _ in range(workers):
        pool.submit(_begin, begun)
    begun.wait()
    torch.set_num_threads(threads)
    return pool


def _begin(begun: Barrier) -> None:
    torch.get_num_threads()  # Without it, the first operation would take the number that is set back.
    torch.set_num_threads(1)
    begun.wait()
