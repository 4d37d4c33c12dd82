"""Serves a run's application until it is interrupted."""

import ipaddress
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from rekindle.errors import UserError
from rekindle.serving.app import LOCAL, make_app

if TYPE_CHECKING:
    from rekindle.run import Run


def serve(run: "Run", host: str, port: int, told: Callable[[str], None]) -> None:
    """Serve the page of a run.

    Args:
        run: A finished run.
        host: Address to listen at.
        port: 0 to 65535; 0 takes one that is free.
        told: Given the page's address once it can be opened.

    Raises:
        UserError: If Starlette or uvicorn is not installed, or the address cannot be taken.
    """
    app = make_app(run, LOCAL if is_loopback(host) else ("*",))
    try:
        import uvicorn
    except ImportError:
        raise UserError("rekindle serve needs the package uvicorn; pip install 'rekindle[serve]'.") from None
    with _listening(host, port) as listener:
        name, taken = listener.getsockname()[:2]
        told(f"http://{f'[{name}]' if ':' in name else name}:{taken}")
        uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off")).run(sockets=[listener])


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address.

    Returns:
        True for 127.0.0.1, ::1 and localhost.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listening(host: str, port: int) -> socket.socket:
    try:
        kind = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=kind)
    except (OSError, OverflowError, UnicodeError) as error:
        raise UserError(
            f"cannot listen at {host}:{port} ({error}); give another --port, 0 for any that is free, or another --host."
        ) from None
