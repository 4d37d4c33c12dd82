"""`--method auto`: successive halving over a short list of ways to fine-tune, against plain fine-tuning at full length.

Jamieson and Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter Optimization, AISTATS 2016 (arXiv 1502.07943): all
candidates train briefly, the best one longer. Plain fine-tuning trains at full length once, and is given up only for a rival that is
right on more validation pictures than luck explains. The test split is read once, by the run that is kept.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rekindle.analysis.classification import beyond_luck
from rekindle.errors import Diverged, UserError, number_of
from rekindle.fitting.freeze_search import stages_of
from rekindle.fitting.job import execute
from rekindle.fitting.searching import Search, remove_checkpoints
from rekindle.fitting.shared import Shared
from rekindle.records import read_predictions
from rekindle.report.format import duration
from rekindle.run import Run
from rekindle.spec import RunSpec
from rekindle.training.listener import Listener

PLAIN = "l2"
SHORT, LONG = 1 / 8, 1 / 2  # Shares of a plain run's epochs; four short ones and a long one are as long as the plain one.


@dataclass(frozen=True)
class Candidate:
    """A way to fine-tune.

    Attributes:
        name: In words.
        options: What it changes in the spec.
    """

    name: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Tried:
    """One trial, as the report shows it.

    Attributes:
        name: Of the candidate.
        epochs: That it trained.
        accuracy: On validation.
        loss: On validation.
        folder: Its run's.
    """

    name: str
    epochs: int
    accuracy: float
    loss: float
    folder: Path

    @classmethod
    def of(cls, name: str, run: Run) -> "Tried":
        """From a finished run."""
        val = run.result["val"]
        return cls(name, run.result["epochs"], val["accuracy"], val["loss"], run.folder)

    def to_dict(self) -> dict[str, Any]:
        """As result.json holds it."""
        return {"name": self.name, "epochs": self.epochs, "accuracy": self.accuracy, "loss": self.loss}


def search_method(
    spec: RunSpec, *, out: Path, listener: Listener, name: str | None = None, keep_checkpoints: bool = False, **options: Any
) -> Run:
    """Train plain fine-tuning and its rivals, and keep the best on validation.

    Args:
        spec: A run whose method is "auto".
        out: Where run folders go; the search has a folder of its own among them.
        listener: Told of progress.
        name: Of the folder of the run that is kept.
        keep_checkpoints: Keep them when all is done.
        **options: Of `execute`: cache, workers, device.

    Returns:
        The run that was kept; its result says what was tried.

    Raises:
        UserError: For bad input, as `rekindle.fit`; beside a freeze.
        Diverged: If plain fine-tuning does; a rival that does is out.
    """
    if spec.freeze:
        raise UserError(f"--method auto freezes by itself; leave out --freeze {spec.freeze}.")
    search, shared = Search("auto", spec, out, length=2), Shared(trial=True)
    folder = search.folder
    work = "three times" if spec.test_every_epoch else "twice"
    listener.note(f"method auto: plain fine-tuning and its rivals, at most {work} the work of a plain run.")

    def train(candidate: Candidate, share: float) -> Tried | None:
        epochs = max(1, int(share * plain.epochs))
        given = search.trial(**{"method": PLAIN, "minutes": None, "epochs": epochs, **candidate.options})
        listener.note(f"method auto: {candidate.name}, {number_of(epochs, 'epoch')}:")
        try:
            return Tried.of(candidate.name, execute(given, out=folder, listener=listener, shared=shared, **options))
        except Diverged as error:
            listener.note(f"method auto: {candidate.name} is out: {error}")
            return None

    first = execute(search.trial(method=PLAIN), out=folder, listener=listener, shared=shared, **options)
    plain = Tried.of("plain fine-tuning", first)
    listener.note(f"method auto: the rivals take about as long again, {duration(first.result['timing']['seconds'])}.")
    rivals = candidates(first.result["lr"], [] if spec.weights == "none" else list(stages_of(spec)), spec.weights != "none")
    short = [(tried, rival) for rival in rivals if (tried := train(rival, SHORT)) is not None]
    best = min(short, key=lambda pair: (-pair[0].accuracy, pair[0].loss), default=None)
    long = None if best is None else train(best[1], LONG)
    kept, changed = plain, dict[str, Any]()
    if best is not None and long is not None and beats(long.folder, plain.folder):
        kept, changed = long, {**best[1].options, "epochs": long.epochs, "minutes": None}
    trials = [one for one in (plain, *(tried for tried, _ in short), long) if one is not None]
    shared.tried = [one.to_dict() for one in trials]
    listener.note(f"method auto: keeps {kept.name}, validation accuracy {100 * kept.accuracy:.1f} %.")
    final, shared = search.final(**{"method": PLAIN, **changed}), search.go_on(shared, kept.folder)
    run = execute(final, out=out, listener=listener, shared=shared, name=name, keep_checkpoints=keep_checkpoints, **options)
    if not keep_checkpoints:
        remove_checkpoints(one.folder for one in trials)
    return run


def candidates(lr: float, stages: list[str], pretrained: bool = True) -> list[Candidate]:
    """Rivals of plain fine-tuning at a learning rate; random weights are nothing to be pulled back to."""
    half = stages[: len(stages) // 2]
    return [
        Candidate("a rate three times as high", {"lr": 3 * lr}),
        *([Candidate("L2-SP", {"method": "l2_sp"})] if pretrained else []),
        Candidate("RIFLE once it has fitted", {"method": "l2+rifle(when='fitted')"}),
        Candidate(f"the first stages frozen, to {half[-1]}", {"freeze": half[-1]})
        if half
        else Candidate("a third of the rate", {"lr": lr / 3}),
    ]


def beats(rival: Path, plain: Path) -> bool:
    """Whether a run is right on more validation pictures than another, by more than luck explains."""
    ours, theirs = _right(rival), _right(plain)
    return beyond_luck([ours[name] for name in ours], [theirs[name] for name in ours])


def _right(folder: Path) -> dict[str, bool]:
    return {row["path"]: row["correct"] == "1" for row in read_predictions(folder, "val")}
