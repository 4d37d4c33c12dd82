"""Bytes of tensors, counted from what torch's allocator is asked for; nothing is sampled, so that other processes do not matter."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile


@dataclass(frozen=True)
class Allocated:
    """Bytes on the processor.

    Attributes:
        peak: The most that was held at one time, beyond what was there before.
        kept: What was still held at the end.
    """

    peak: int
    kept: int


def allocated(work: Callable[[], Any]) -> Allocated:
    """What a call allocates; its result is held until the count is done."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        result = work()
    events = [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.device_type() == DeviceType.CPU:
            held += event.nbytes()
            peak = max(peak, held)
    del result
    return Allocated(peak, held)
