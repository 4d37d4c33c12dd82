"""A headless Chromium that a test can drive, over the DevTools protocol."""

import base64
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome")


class Tab:
    """One open page."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._numbers = socket, itertools.count(1)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command, and wait for its result."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (reply := json.loads(self._socket.recv(timeout=60))).get("id") != number:
            pass
        assert "error" not in reply, reply
        result: dict[str, Any] = reply["result"]
        return result

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page; a promise is awaited."""
        found = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_for(self, script: str, seconds: float = 30.0) -> None:
        """Wait until an expression is true."""
        until = time.monotonic() + seconds
        while not self.evaluate(script):
            assert time.monotonic() < until, f"{script} did not become true"
            time.sleep(0.05)

    def screenshot(self, path: Path, width: int = 1280, height: int = 800, *, dark: bool = False) -> None:
        """Write a PNG of the page at a size, in light or dark colours."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))


@contextmanager
def opened(address: str, profile: Path) -> Iterator[Tab]:
    """Open a page, in a browser whose files lie in the folder `profile`; skips the test where there is no Chromium."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium on this machine: tests of pages in a browser need it")
    command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", f"--user-data-dir={profile}", address]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
        try:
            with connect(_page_socket(profile), max_size=2**26) as socket:
                tab = Tab(socket)
                tab.wait_for(f"location.href.startsWith('{address}') && document.readyState === 'complete'")
                yield tab
        finally:
            browser.kill()


def _page_socket(profile: Path) -> str:
    """Where the first page of the browser takes commands."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if (told := profile / "DevToolsActivePort").is_file() and "\n" in told.read_text():
            pages = requests.get(f"http://127.0.0.1:{told.read_text().splitlines()[0]}/json/list", timeout=10).json()
            if found := [page for page in pages if page["type"] == "page"]:
                return str(found[0]["webSocketDebuggerUrl"])
        time.sleep(0.05)
    raise AssertionError("the browser did not open")
