"""Damage to a file's bytes, as disks, networks and people bring it about."""

import random
from collections.abc import Callable


def flip(whole: bytes, stream: random.Random) -> bytes:
    """One bit is another."""
    place = stream.randrange(len(whole))
    return whole[:place] + bytes([whole[place] ^ 1 << stream.randrange(8)]) + whole[place + 1 :]


def scatter(whole: bytes, stream: random.Random) -> bytes:
    """A few bytes anywhere are others."""
    damaged = bytearray(whole)
    for _ in range(stream.randint(2, 20)):
        damaged[stream.randrange(len(damaged))] = stream.randrange(256)
    return bytes(damaged)


def cut(whole: bytes, stream: random.Random) -> bytes:
    """The end is missing."""
    return whole[: stream.randrange(len(whole))]


def append(whole: bytes, stream: random.Random) -> bytes:
    """Something stands behind the end."""
    return whole + stream.randbytes(stream.randint(1, 600))


def zero(whole: bytes, stream: random.Random) -> bytes:
    """A region was never written."""
    start, end = sorted(stream.sample(range(len(whole) + 1), 2))
    return whole[:start] + bytes(end - start) + whole[end:]


def overwrite(whole: bytes, stream: random.Random) -> bytes:
    """A region holds something else."""
    start, end = sorted(stream.sample(range(len(whole) + 1), 2))
    return whole[:start] + stream.randbytes(end - start) + whole[end:]


def leave_out(whole: bytes, stream: random.Random) -> bytes:
    """A region is missing, and what follows moved up."""
    start, end = sorted(stream.sample(range(len(whole) + 1), 2))
    return whole[:start] + whole[end:]


def swap(whole: bytes, stream: random.Random) -> bytes:
    """Two regions changed places."""
    first, middle, end = sorted(stream.sample(range(len(whole) + 1), 3))
    return whole[:first] + whole[middle:end] + whole[first:middle] + whole[end:]


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (flip, scatter, cut, append, zero, overwrite, leave_out, swap)


def damaged(whole: bytes, stream: random.Random) -> tuple[str, bytes]:
    """One damage of any kind, by its name. The bytes differ from `whole`."""
    while True:
        damage = stream.choice(DAMAGES)
        found = damage(whole, stream)
        if found != whole:
            return damage.__name__, found
