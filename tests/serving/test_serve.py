"""The page of a run answers as the run does, to this machine alone, and to nothing that is no picture."""

import base64
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
import uvicorn
from PIL import Image

import rekindle
from rekindle.cli import main
from rekindle.report.heat_cards import heat_picture
from rekindle.run import Run
from rekindle.serving import app
from rekindle.serving.server import is_loopback
from tests.serving.browser import opened
from tests.toys import picture_folder

BYTES = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two classes, one of which has a name that a page must escape."""
    folder = picture_folder(tmp_path_factory.mktemp("data"), {"train": 5, "val": 10})
    for split in folder.iterdir():
        min(split.iterdir()).rename(split / "<b>ants")
    return folder


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    options = {"model": "tiny", "weights": "none", "epochs": 2, "lr": 0.01, "image_size": 32, "batch_size": 4, "precision": "32"}
    return rekindle.fit(photos, **options, workers=0, out=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def address(run: Run) -> Iterator[str]:
    """Where the run is served."""
    server = uvicorn.Server(uvicorn.Config(app.make_app(run), log_level="error", lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def pictures(photos: Path) -> list[Path]:
    return sorted((photos / "val").rglob("*.png"))


def test_it_answers_as_the_run_does(address: str, run: Run, photos: Path) -> None:
    files = pictures(photos)[::4]
    for path, row in zip(files, run.predict(files, app.TOP_K, unsure=True), strict=True):
        reply = requests.post(f"{address}/predict", path.read_bytes(), headers=BYTES, timeout=30)
        assert reply.status_code == 200
        assert reply.json() == {"classes": row.classes, "confidences": row.confidences, "unsure": row.unsure, "error": ""}


def test_a_heat_map_is_of_the_class_that_is_named(address: str, run: Run, photos: Path) -> None:
    """It is the one that a run's page draws of the same picture, only larger."""
    path = pictures(photos)[0]
    (row,) = run.predict([path])
    found = requests.post(f"{address}/explain", path.read_bytes(), headers=BYTES, timeout=30).json()
    assert found["class"] == row.classes[0] and not found["error"]
    kind, _, text = found["heat"].partition(",")
    assert kind == "data:image/jpeg;base64" and found["heat"] == heat_picture(run, path, row.classes[0], app.EDGE)
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")).astype(int)
    assert max(image.shape) <= app.EDGE and np.ptp(image, axis=2).max() > 20  # In colour, over grey.


def test_what_a_heat_map_lacks_is_told(address: str, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    reply = requests.post(f"{address}/explain", pictures(photos)[0].read_bytes(), headers=BYTES, timeout=30)
    assert reply.status_code == 422 and "rekindle[explain]" in reply.json()["error"] and not reply.json()["heat"]


@pytest.mark.parametrize("what", ["predict", "explain"])
@pytest.mark.parametrize("bad", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(40), b"<svg/>"], ids=repr)
def test_what_is_no_picture_is_told(bad: bytes, what: str, address: str) -> None:
    reply = requests.post(f"{address}/{what}", bad, headers=BYTES, timeout=30)
    assert reply.status_code == 422 and reply.json()["error"] and not any(reply.json().get(name) for name in ("classes", "heat"))


def test_a_file_that_is_too_large_is_refused_before_it_is_held(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "LARGEST", 2**20)
    reply = requests.post(f"{address}/predict", (bytes(2**16) for _ in range(100)), headers=BYTES, timeout=30)
    assert reply.status_code == 413 and "1 MiB" in reply.json()["error"]


def test_other_sites_get_no_answer(address: str, photos: Path) -> None:
    """A form of another site cannot send this type of content, its script gets no leave to, and a name that leads here is not known."""
    picture = pictures(photos)[0].read_bytes()
    assert requests.post(f"{address}/predict", picture, headers={"Content-Type": "text/plain"}, timeout=30).status_code == 415
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    assert "access-control-allow-origin" not in requests.options(f"{address}/predict", headers=asked, timeout=30).headers
    for path, method in (("/", "GET"), ("/predict", "POST"), ("/explain", "POST")):
        reply = requests.request(method, address + path, data=picture, headers={**BYTES, "Host": "evil.example"}, timeout=30)
        assert reply.status_code == 400


def test_nothing_is_kept(address: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for what in ("predict", "explain"):
        assert requests.post(f"{address}/{what}", pictures(photos)[0].read_bytes(), headers=BYTES, timeout=30).status_code == 200
    assert list(tmp_path.iterdir()) == []


def test_the_page_escapes_names_and_loads_nothing_from_elsewhere(address: str) -> None:
    reply = requests.get(address, timeout=30)
    assert "&lt;b&gt;ants" in reply.text and "<b>" not in reply.text
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    assert re.findall(r'(?:src|href)="([^"]+)"', reply.text) == ["page.js"]


DROP = """(() => {
  const held = new DataTransfer();
  for (const [name, text] of FILES) held.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name, {type: "image/png"}));
  document.getElementById("drop").dispatchEvent(new DragEvent("drop", {bubbles: true, cancelable: true, dataTransfer: held}));
})()"""
CARDS = "[...document.querySelectorAll('figure:not(.waiting)')].reverse().map((card) => card.querySelector('figcaption').innerText)"


def test_pictures_dropped_in_a_browser_are_classified(address: str, run: Run, photos: Path, tmp_path: Path) -> None:
    files = [*pictures(photos)[:2], tmp_path / "broken.png"]
    files[-1].write_bytes(b"no picture")
    dropped = json.dumps([[path.name, base64.b64encode(path.read_bytes()).decode()] for path in files])
    with opened(address, tmp_path / "profile") as tab:
        tab.evaluate(DROP.replace("FILES", dropped))
        tab.wait_for(f"{CARDS}.length === 3")
        cards = tab.evaluate(CARDS)
        buttons = "[...document.querySelectorAll('.look')].reverse().map((button) => button.hidden)"
        assert tab.evaluate(buttons) == [False, False, True]
        for shown in (True, False, True):
            tab.evaluate("document.querySelector('.look:not([hidden])').click()")
            tab.wait_for(
                f"[...document.querySelectorAll('.heat')].some((heat) => heat.naturalWidth && heat.offsetWidth) === {json.dumps(shown)}"
            )
    for card, path, row in zip(cards, files, run.predict(files, unsure=True), strict=True):
        assert path.name in card and ("unsure" in card) == bool(row.unsure)
        assert row.error in card if row.error else card.startswith(row.classes[0])


def test_the_command_serves_until_it_is_interrupted(run: Run) -> None:
    command = [sys.executable, "-m", "rekindle", "serve", str(run.folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        said = process.stdout.readline()
        found = re.match(r"open (http://127\.0\.0\.1:\d+) ", said)
        assert found, said + process.stderr.read()
        assert requests.get(found[1], timeout=30).status_code == 200
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(timeout=30) == 0 and process.stderr.read() == ""


def test_an_address_that_is_taken_is_one_sentence(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert main(["serve", str(run.folder), "--port", str(other.getsockname()[1])]) == 2
    assert "give another --port" in capsys.readouterr().err
    for port in ("-1", "65536", str(10**30)):
        assert main(["serve", str(run.folder), "--port", port]) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("host", "alone"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("example.org", False)],
)
def test_who_can_reach_an_address(host: str, alone: bool) -> None:
    assert is_loopback(host) == alone
