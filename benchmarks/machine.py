"""The machine that figures are of: its name, its device, and the clock that it is measured by."""

import os
import platform
import time
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def name() -> str:
    """What decides its speed, in words.

    Returns:
        Such as "NVIDIA H200", or "2 cores with AMX" (x86-64 says what it multiplies with, others what they are).
    """
    if DEVICE.type == "cuda":
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} cores with {_multiplies_with()}"


def _multiplies_with() -> str:
    for check, instructions in (("_is_amx_tile_supported", "AMX"), ("_is_avx512_bf16_supported", "AVX-512 BF16")):
        if getattr(torch.cpu, check, lambda: False)():
            return instructions
    known = {"AVX512": "AVX-512", "AVX2": "AVX2"}
    return known.get(torch.backends.cpu.get_cpu_capability(), platform.machine())


def facts() -> dict[str, Any]:
    """What a reader of figures wants to know of them.

    Returns:
        {"date": ..., "python": ..., "torch": ..., "threads": ...}.
    """
    return {
        "date": datetime.now(UTC).date().isoformat(), "python": platform.python_version(), "torch": metadata.version("torch"),
        "threads": torch.get_num_threads(),
    }  # fmt: skip


def now() -> float:
    """Seconds: of this process's processor time where it has one thread, which other work distorts little; else of the clock, with the GPU done.

    Returns:
        Since some moment of the past.
    """
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()
