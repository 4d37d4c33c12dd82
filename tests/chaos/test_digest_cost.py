"""What digests cost in a whole run of SqueezeNet on real photographs."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rekindle
from rekindle import digests
from rekindle.fitting import job
from tests.chaos.ledger import COSTS

pytestmark = pytest.mark.chaos
MOST = 0.01


class Clock:
    """Processor time of some functions, together."""

    def __init__(self) -> None:
        self.seconds, self.calls = 0.0, 0

    def over(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that counts what another takes."""

        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds, self.calls = self.seconds + time.thread_time() - began, self.calls + 1

        return timed


def test_under_one_percent_of_a_run(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, contents = Clock(), Clock()
    monkeypatch.setattr(digests, "_digest", files.over(digests._digest))
    monkeypatch.setattr(digests, "_place", files.over(digests._place))
    monkeypatch.setattr(job, "weights_hash", contents.over(job.weights_hash))
    monkeypatch.setattr(job, "data_hash", contents.over(job.data_hash))
    options: dict[str, Any] = {"model": "torchvision:squeezenet1_0", "image_size": 128, "per_class": 10, "epochs": 3}
    began = time.process_time()
    run = rekindle.fit(
        shared / "data" / "clothing", weights=str(shared / "weights" / "squeezenet1_0-imagenet.safetensors"), out=tmp_path / "runs",
        workers=0, **options,
    )  # fmt: skip
    whole = time.process_time() - began
    assert rekindle.Run(run.folder).predict(next((shared / "data" / "clothing").rglob("*.jpg")))  # Verifies the model.
    found = {"options": options, "seconds": whole, "files": files.seconds, "calls": files.calls, "contents": contents.seconds}
    COSTS.parent.mkdir(parents=True, exist_ok=True)
    COSTS.write_text(json.dumps(found), "utf-8")
    assert files.calls > 2 * options["epochs"] and files.seconds < MOST * whole
