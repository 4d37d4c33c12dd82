"""Being online: a download that fails is one sentence, and no silent host holds a run up."""

import os
import pickle
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlparse
from urllib.request import getproxies

import torch

from rekindle.errors import UserError, first_line

NETWORK = ("urllib", "http", "huggingface_hub", "requests", "socket", "ConnectionError", "TimeoutError")  # Parts of exceptions' names.


PATIENCE = 10.0  # Seconds that a hub may stay silent.


@contextmanager
def offline_if_unreachable(needed: bool) -> Iterator[None]:
    """Let the hub's client look into its cache alone where its host does not answer, instead of trying for a minute.

    Yields:
        Nothing.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    if needed and not before and not getproxies() and not _answers(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _answers(address: str) -> bool:
    parts = urlparse(address)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 443), timeout=PATIENCE):
            return True
    except OSError:
        return False


@contextmanager
def weights_only() -> Iterator[None]:
    """Let every torch.load read tensors alone, also where a library asks for more, so that no file in a cache can run code.

    Yields:
        Nothing.
    """
    force, forbid = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    before = {name: os.environ.pop(name, None) for name in (force, forbid)}
    os.environ[force] = "1"
    try:
        yield
    finally:
        os.environ.pop(force)
        os.environ.update({name: value for name, value in before.items() if value is not None})


@contextmanager
def download_errors(name: str) -> Iterator[None]:
    """Turn every way in which a download fails into one sentence, and let none hang on a silent host.

    Yields:
        Nothing; a download that fails inside ends in a `UserError`.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(before or PATIENCE)
    try:
        yield
    except UserError:
        raise
    except pickle.UnpicklingError:
        raise UserError(
            f"the stored file of {name}'s weights holds more than weights, so it is not read; remove it from {torch.hub.get_dir()} "
            f"(it is fetched again), or give --weights FILE.safetensors."
        ) from None
    except Exception as error:
        if not _is_download(error):
            advice = "try --weights none or FILE.safetensors, or another --model"
            raise UserError(f"{name} cannot be built ({first_line(error)}); {advice}.") from error
        raise UserError(
            f"the weights of {name} cannot be downloaded ({first_line(error)}); give a file with --weights FILE.safetensors, "
            f"start from random ones with --weights none, or leave --model out, which takes a network that is installed."
        ) from None
    finally:
        socket.setdefaulttimeout(before)


def _is_download(error: BaseException) -> bool:
    chain: list[str] = []
    current: BaseException | None = error
    while current is not None and len(chain) < 10:
        chain.append(f"{type(current).__module__}.{type(current).__name__}")
        current = current.__cause__ or current.__context__
    return any(part in text for text in chain for part in NETWORK)
