"""Experiment trackers that a run's figures go to, beside metrics.jsonl: `--log tensorboard`, wandb, mlflow, trackio. None is loaded unless asked for.

Each keeps to what its package reads from the environment: where its server is, whether it works offline, who is logged in.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from rekindle.errors import UserError
from rekindle.training.listener import Listener, Relay

Log = Literal["tensorboard", "wandb", "mlflow", "trackio"]
PROJECT = "rekindle"
SKIPPED = ("format", "epoch", "timing")


class Tracker(Protocol):
    """Where figures go."""

    def log(self, figures: dict[str, float], epoch: int) -> None:
        """Figures after an epoch, which counts from 0."""

    def close(self) -> None:
        """Nothing comes any more, for now or at all."""


class Tracked(Relay):
    """A listener that passes all on, and figures to a tracker too.

    Args:
        listener: Who watches else.
        kind: The tracker.
    """

    def __init__(self, listener: Listener, kind: Log) -> None:
        super().__init__(listener)
        self._kind, self._epoch = kind, 0
        self._tracker: Tracker | None = None

    def began(self, folder: Path, settings: dict[str, Any], history: list[dict[str, Any]]) -> None:
        """Open the tracker's run, or go on with it behind the epochs of `history`.

        Raises:
            UserError: If the tracker is not installed or will not start.
        """
        try:
            self._tracker = OPENERS[self._kind](folder, settings, len(history))
        except ImportError:
            raise UserError(f"--log {self._kind} needs the package {self._kind}; pip install {self._kind}") from None
        except Exception as error:
            raise UserError(f"--log {self._kind} does not start ({type(error).__name__}: {error}); leave it out, or mend it.") from error
        super().began(folder, settings, history)

    def epoch(self, record: dict[str, Any]) -> None:
        """Pass a line of metrics.jsonl on."""
        if self._tracker is not None:
            self._epoch = record["epoch"]
            self._tracker.log(dict(figures_of(record)), self._epoch)
        super().epoch(record)

    def ended(self, result: dict[str, Any]) -> None:
        """Pass the result's accuracies, losses and calibration errors on, and close."""
        if self._tracker is not None:
            names = ("accuracy", "loss", "calibration_error")
            splits = {split: result[split] for split in ("val", "test") if split in result}
            last = {f"final/{split}/{name}": part[name] for split, part in splits.items() for name in names if name in part}
            self._tracker.log(last, self._epoch)
        self.close()
        super().ended(result)

    def close(self) -> None:
        """Close the tracker's run, if one is open."""
        if self._tracker is not None:
            self._tracker.close()
        self._tracker = None


@contextmanager
def tracking(listener: Listener, kind: Log | None) -> Iterator[Listener]:
    """A listener whose figures go to a tracker too, which is closed whatever happens; the listener itself where none is asked for.

    Yields:
        The listener to tell.
    """
    if kind is None:
        yield listener
        return
    tracked = Tracked(listener, kind)
    try:
        yield tracked
    finally:
        tracked.close()


def figures_of(record: dict[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    """Numbers of a line of metrics.jsonl, at any depth, by names such as "val/accuracy".

    Yields:
        Pairs of name and number.
    """
    for name, value in record.items():
        if isinstance(value, dict):
            if name not in SKIPPED:
                yield from figures_of(value, f"{before}{name}/")
        elif isinstance(value, int | float) and math.isfinite(value) and before + name not in SKIPPED:
            yield before + name, float(value)


class _TensorBoard:
    """Event files in the run folder: `tensorboard --logdir runs`."""

    def __init__(self, folder: Path, settings: dict[str, Any], epochs: int) -> None:
        import tensorboard  # noqa: F401  Its absence is to be told by its own name.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=epochs)
        self._writer.add_text("settings", "\n".join(f"    {name}: {value}" for name, value in settings.items()), epochs)

    def log(self, figures: dict[str, float], epoch: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, epoch, new_style=True, double_precision=True)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _Project:
    """What wandb has, and trackio after it: runs of a project, found again by their name."""

    def __init__(self, module: Any, folder: Path, settings: dict[str, Any], **more: Any) -> None:
        self._module = module
        module.init(project=PROJECT, name=folder.name, config=settings, resume="allow", **more)

    def log(self, figures: dict[str, float], epoch: int) -> None:
        self._module.log(figures, step=epoch)

    def close(self) -> None:
        self._module.finish()


def _wandb(folder: Path, settings: dict[str, Any], _: int) -> Tracker:
    import wandb

    return _Project(wandb, folder, settings, id=settings["run"], dir=str(folder))


def _trackio(folder: Path, settings: dict[str, Any], _: int) -> Tracker:
    import trackio

    return _Project(trackio, folder, settings)


class _MLflow:
    """A run of the experiment "rekindle", found again by a tag."""

    def __init__(self, folder: Path, settings: dict[str, Any], _: int) -> None:
        import mlflow

        self._mlflow, run = mlflow, settings["run"]
        experiment = mlflow.set_experiment(PROJECT)
        found = mlflow.search_runs([experiment.experiment_id], f"tags.rekindle_run = '{run}'", output_format="list", max_results=1)
        mlflow.start_run(run_id=found[0].info.run_id if found else None, run_name=folder.name, tags={"rekindle_run": run})
        if not found:
            mlflow.log_params(settings)

    def log(self, figures: dict[str, float], epoch: int) -> None:
        self._mlflow.log_metrics(figures, step=epoch)

    def close(self) -> None:
        self._mlflow.end_run()


OPENERS: dict[str, Callable[[Path, dict[str, Any], int], Tracker]] = {
    "tensorboard": _TensorBoard, "wandb": _wandb, "mlflow": _MLflow, "trackio": _trackio,
}  # fmt: skip
