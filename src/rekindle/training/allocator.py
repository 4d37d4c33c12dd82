"""Memory that malloc keeps."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # Of glibc's malloc.h.
ALL = 2**31 - 1


def keep_freed_memory() -> None:
    """Let this process use freed memory again; only glibc's malloc, Linux's usual one, needs to be told.

    It hands blocks above 32 MiB, such as activations, back to the system as they are freed, and the system clears each page that it
    gives out anew: a quarter of a pass over pictures. No result depends on it.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none.
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, ALL)
