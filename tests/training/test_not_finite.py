"""NaN and inf are never chosen: a run ends at the first of them, in one sentence that stays the same, with finite weights kept."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import rekindle
from rekindle import models
from rekindle.analysis.linear_probe import fit_probe
from rekindle.cli import main
from rekindle.errors import Diverged, UserError
from rekindle.fitting import freeze_search, job, look, method_search
from rekindle.study.store import Study
from rekindle.study.worker import run_cell, train
from rekindle.training import trainer
from rekindle.training.checkpoints import load_state, save_state
from rekindle.training.polyak import LEAST, loss_and_square, polyak_lr
from rekindle.training.trainer import Training
from rekindle.tuner import Tuner
from tests.study.test_store import make
from tests.toys import Notes, picture_folder

TRAIN, VAL, TEST = 16, 6, 4  # Pictures of each split, which tell them apart.
BAD = 1  # The epoch of three that goes wrong.


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finite")
    picture_folder(root / "data", {"train": TRAIN // 2, "val": VAL // 2, "test": TEST // 2})
    picture_folder(root / "no_val", {"train": TRAIN // 2, "test": TEST // 2})
    return root


@pytest.fixture
def options(root: Path, tmp_path: Path) -> dict[str, Any]:
    return {"data": root / "data", "model": "cifar_resnet8", "weights": "none", "epochs": 3, "lr": 0.01, "batch_size": 8, "precision": "32",
            "out": tmp_path / "runs"}  # fmt: skip


@pytest.fixture
def epoch(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The epoch that is trained at this moment."""
    now, real = {"is": -1}, Training._epoch

    def known(self: Training, epoch: int, *arguments: Any) -> None:
        now["is"] = epoch
        real(self, epoch, *arguments)

    monkeypatch.setattr(Training, "_epoch", known)
    return now


def break_loss(value: float, epoch: dict[str, int], patch: pytest.MonkeyPatch) -> None:
    real = Tuner.loss

    def loss(self: Tuner, *arguments: Any, **options: Any) -> torch.Tensor:
        found = real(self, *arguments, **options)
        return found * value if epoch["is"] == BAD else found

    patch.setattr(Tuner, "loss", loss)


def break_outputs(value: float, epoch: dict[str, int], patch: pytest.MonkeyPatch, count: int, at: int = BAD) -> None:
    """Let one picture of the split with `count` pictures have bad logits."""
    real = trainer.evaluate

    def evaluate(fabric: Any, module: Any, samples: Any, *told: Any) -> torch.Tensor:
        found = real(fabric, module, samples, *told)
        if epoch["is"] == at and len(samples) == count:
            found[-1] = (found[-1] + value).softmax(0)
        return found

    patch.setattr(trainer, "evaluate", evaluate)


def break_weights(value: float, epoch: dict[str, int], patch: pytest.MonkeyPatch) -> None:
    """After the last step of an epoch, so that no loss has seen it yet."""
    real = Training._step

    def step(self: Training, at: int, number: int, rows: torch.Tensor) -> None:
        real(self, at, number, rows)
        if at == BAD and number == 1:
            with torch.no_grad():
                next(iter(self.model.parameters()))[0, 0, 0, 0] = value

    patch.setattr(Training, "_step", step)


def assert_ends_in_a_sentence(options: dict[str, Any], words: str, newest: str, patch: pytest.MonkeyPatch) -> None:
    """The run ends as it should, resumed too; undisturbed, it goes on to its end."""
    sentences = []
    with pytest.raises(Diverged) as caught:
        rekindle.fit(**options)
    sentences.append(str(caught.value))
    [folder] = options["out"].iterdir()
    with pytest.raises(Diverged) as caught:
        rekindle.fit(resume=folder)
    sentences.append(str(caught.value))
    assert sentences[0] == sentences[1] and len(sentences[0].splitlines()) == 1
    path = folder / "checkpoints" / f"{newest}.safetensors"
    assert words in sentences[0] and "; try --lr 0.001" in sentences[0] and f"the last finite weights are in {path})." in sentences[0]
    for left in (folder / "checkpoints").iterdir():
        assert all(value.isfinite().all() for value in load_state(left)["model"].values())
    assert not (folder / "result.json").exists() and not (folder / "model.safetensors").exists()
    for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines():
        json.loads(line, parse_constant=pytest.fail)
    patch.undo()
    result = rekindle.fit(resume=folder).result
    assert result["status"] == "done" and math.isfinite(result["test"]["loss"])


KEPT: list[dict[str, Any]] = [{"keep": "last"}, {"keep": "best"}, {"keep": "auto"}, {"patience": 1}]


@pytest.mark.parametrize("kept", KEPT, ids=str)
@pytest.mark.parametrize("value", [math.nan, pytest.param(math.inf, marks=pytest.mark.slow)])
def test_training_loss(
    value: float, kept: dict[str, Any], options: dict[str, Any], epoch: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_loss(value, epoch, monkeypatch)
    words = f"the loss became {value} at epoch 2, step 1, with learning rate 0.01"
    assert_ends_in_a_sentence({**options, **kept}, words, "epoch00001-step0000000", monkeypatch)


@pytest.mark.parametrize("kept", KEPT, ids=str)
@pytest.mark.parametrize("value", [math.nan, pytest.param(math.inf, marks=pytest.mark.slow)])
def test_validation_only(
    value: float, kept: dict[str, Any], options: dict[str, Any], epoch: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_outputs(value, epoch, monkeypatch, VAL)
    words = "the validation loss became nan at epoch 2, with learning rate 0.01"
    assert_ends_in_a_sentence({**options, **kept}, words, "epoch00001-step0000000", monkeypatch)


@pytest.mark.parametrize("kept", KEPT, ids=str)
def test_test_only_at_the_end(
    kept: dict[str, Any], options: dict[str, Any], epoch: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def at_the_end(fabric: Any, module: Any, samples: Any, *told: Any) -> torch.Tensor:
        found = real(fabric, module, samples, *told)
        return found * math.nan if len(samples) == TEST else found

    real = trainer.evaluate
    monkeypatch.setattr(trainer, "evaluate", at_the_end)
    with pytest.raises(Diverged, match="the test loss became nan at epoch") as caught:
        rekindle.fit(**options, **kept)
    [folder] = options["out"].iterdir()
    assert not (folder / "result.json").exists() and str(max((folder / "checkpoints").iterdir())) in str(caught.value)
    with pytest.raises(Diverged) as again:
        rekindle.fit(resume=folder)
    assert str(again.value) == str(caught.value)


def test_test_that_is_watched(options: dict[str, Any], epoch: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    break_outputs(math.nan, epoch, monkeypatch, TEST)
    assert_ends_in_a_sentence(
        {**options, "test_every_epoch": True}, "the test loss became nan at epoch 2", "epoch00001-step0000000", monkeypatch
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_no_loss_has_seen(
    value: float, root: Path, options: dict[str, Any], epoch: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a validation split nothing but the weights themselves can tell."""
    break_weights(value, epoch, monkeypatch)
    given = {**options, "data": root / "no_val", "val_fraction": 0.0}
    assert_ends_in_a_sentence(given, "a weight became nan at epoch 2", "epoch00001-step0000000", monkeypatch)


def test_before_the_first_checkpoint(options: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    command = [part for name, value in options.items() if name != "data" for part in (f"--{name.replace('_', '-')}", str(value))]
    assert main(["fit", str(options["data"]), *command, "--lr", "1e30", "--head-lr", "1e31", "--clip-norm", "none"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "1e+30 (1e+31 of the head); try --lr 1e+29 --head-lr 1e+30" in last and last.endswith("(no weights were saved before).")


def test_a_folder_whose_checkpoint_is_broken_says_so(options: dict[str, Any]) -> None:
    """As rekindle 0.1.0 left them: it went on with weights that were not finite."""
    folder = rekindle.fit(**options, keep_checkpoints=True).folder
    (folder / "result.json").unlink()
    older, newest = sorted((folder / "checkpoints").iterdir())
    state = load_state(newest)
    next(iter(state["model"].values())).view(-1)[0] = math.nan
    state["history"][-1]["val"]["loss"] = math.nan
    save_state(folder / "checkpoints", 3, 0, state)
    with pytest.raises(Diverged, match=f"the validation loss became nan at epoch 3.*the last finite weights are in {older}"):
        rekindle.fit(resume=folder)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (0, 2))])
def test_high_rates_end_in_a_sentence_or_in_finite_numbers(seed: int, tmp_path: Path) -> None:
    for split, count in (("train", 20), ("val", 4)):
        for label in range(2):
            (tmp_path / "data" / split / str(label)).mkdir(parents=True)
            for number in range(count):
                pixels = np.random.default_rng([label, number, count]).integers(0, 256, (32, 32, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / str(label) / f"{number}.png")
    given = {
        "model": "tiny",
        "image_size": 32,
        "epochs": 4,
        "batch_size": 16,
        "precision": "32",
        "keep": "best",
        "clip_norm": None,
        "seed": seed,
    }
    for lr in (30.0, 1e4):
        try:
            result = rekindle.fit(tmp_path / "data", **given, lr=lr, out=tmp_path / "runs").result
        except Diverged as error:
            assert f"try --lr {lr / 10:g}" in str(error)
        else:
            assert math.isfinite(result["val"]["loss"])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_damaged_pretrained_weights(value: float, options: dict[str, Any], tmp_path: Path) -> None:
    module = models.build("cifar_resnet8", weights="none").module
    with torch.no_grad():
        next(module.parameters()).view(-1)[0] = value
    save_file(module.state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match="the pre-trained network's features are not finite for (8|16) of 16 training pictures"):
        rekindle.fit(**{**options, "weights": str(tmp_path / "weights.safetensors")})
    assert not list(options["out"].glob("*"))


@pytest.mark.parametrize("count", [VAL, TEST])
def test_a_probe_without_figures_on_a_split(count: int, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pre-trained network overflows there, the fine-tuned one does not."""
    real, notes = job.features_at, []

    def features_at(module: Any, samples: Any, *arguments: Any) -> torch.Tensor:
        found = real(module, samples, *arguments)
        return found * math.inf if len(samples) == count else found

    monkeypatch.setattr(job, "features_at", features_at)
    save_file(models.build("cifar_resnet8", weights="none").module.state_dict(), tmp_path / "weights.safetensors")
    given = {**options, "weights": str(tmp_path / "weights.safetensors"), "keep": "auto"}
    result = rekindle.fit(**given, listener=Notes(notes)).result
    assert result["kept_epoch"] >= 0 and set(result["probe"]) & {"val", "test"} == {"test" if count == VAL else "val"}
    assert any("features that are not finite on the" in note for note in notes)


def test_the_probe_refuses_and_batchnorm_stays_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.randn(12, 5), torch.arange(12) % 3
    with pytest.raises(UserError, match="not finite"):
        fit_probe(torch.where(torch.arange(12)[:, None] == 3, math.inf, x), y)
    seen = look.Look(x.double(), y, fit_probe(x, y), 1.0)
    monkeypatch.setattr(look, "features_of", lambda *a, **k: (np.full((12, 5), np.nan), None))
    assert look.batchnorm_for(torch.nn.BatchNorm2d(3), Labels(y), seen, 0, torch.device("cpu"), 4) == "frozen"  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_polyaks_rate_bears_what_overflows(value: float) -> None:
    from contextlib import nullcontext

    model = torch.nn.Linear(3, 2)
    batch = torch.full((4, 3), value), torch.tensor([0, 1, 0, 1])
    found = loss_and_square(model, ["weight"], *batch, torch.nn.functional.cross_entropy, nullcontext)
    assert polyak_lr([found, (1.0, 1.0)]) == LEAST


def test_a_diverged_cell_fails_alone(options: dict[str, Any], tmp_path: Path) -> None:
    """With its sentence, and no exception for the study."""
    base = {name: value for name, value in options.items() if name not in ("data", "out")}
    study = make(
        tmp_path, seeds=1, sizes=[4], base={**base, "lr": 1e30, "clip_norm": None, "epochs": 1}, tasks={"colours": {"data": str(options["data"])}},
        methods={"Wild": "l2"}, regularizers={"L2": "l2"},
    )  # fmt: skip
    [cell] = study.cells()
    assert run_cell(study, cell, train)
    record = Study.open(study.folder).record(cell.key)
    assert record["state"] == "failed" and "became" in record["error"] and "try --lr 1e+29" in record["error"]
    assert "Traceback" in study.log(cell).read_text("utf-8")


def failing(real: Callable[..., Any], bad: Callable[[Any], bool]) -> Callable[..., Any]:
    """`execute`, but for some specs."""

    def execute(spec: Any, **more: Any) -> Any:
        if bad(spec):
            raise Diverged("the loss became nan")
        return real(spec, **more)

    return execute


@pytest.mark.parametrize("all_rivals", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_rival_that_diverges_is_out(all_rivals: bool, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def bad(spec: Any) -> bool:
        return spec.epochs < 3 if all_rivals else bool(spec.lr and spec.lr > 0.02)

    notes: list[str] = []
    monkeypatch.setattr(method_search, "execute", failing(method_search.execute, bad))
    given = {**options, "model": "tiny", "weights": "default", "image_size": 32}
    result = rekindle.fit(**given, method="auto", listener=Notes(notes)).result
    assert len(result["tried"]) == (1 if all_rivals else 5)
    assert any("is out: the loss became nan" in note for note in notes)


def test_frozen_stages_that_diverge_are_out(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    real = freeze_search.execute
    given = {**options, "epochs": 1}
    monkeypatch.setattr(freeze_search, "execute", failing(real, lambda spec: spec.freeze is None))
    assert rekindle.fit(**given, freeze="auto").result["freeze"]
    monkeypatch.setattr(freeze_search, "execute", failing(real, lambda spec: True))
    with pytest.raises(Diverged):
        rekindle.fit(**given, freeze="auto")


def test_predictions_that_are_not_finite_are_no_predictions(options: dict[str, Any]) -> None:
    run = rekindle.fit(**{**options, "epochs": 1})
    weights = load_file(run.folder / "model.safetensors")
    save_file(
        {name: value * math.nan if value.is_floating_point() else value for name, value in weights.items()},
        run.folder / "model.safetensors",
    )
    again = type(run)(run.folder)
    assert [row.classes for row in again.predict(options["data"] / "test")] == [[]] * TEST
    with pytest.raises(UserError, match="not finite for 4 of 4 pictures"):
        again.evaluate(options["data"])


class Labels:
    """Samples of which nothing but the labels is looked at."""

    def __init__(self, labels: torch.Tensor) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)
