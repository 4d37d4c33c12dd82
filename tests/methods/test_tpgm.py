"""The trainable projected gradient method in float64: by finite differences, against the algorithm written out, and where the answer is known."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rekindle
from rekindle import DataPasses, Tuner
from rekindle.board.row import row_of
from rekindle.data import open_data
from rekindle.data.samples import Samples
from rekindle.data.splits import withhold
from rekindle.fitting import job
from rekindle.methods.anchors._radius import lengths, shares
from rekindle.methods.anchors.tpgm import TPGM, slope_inside
from rekindle.testing.network import Loop, batch, data, hybrid
from rekindle.testing.network import passes as training
from tests.faults.equal_runs import assert_equal_runs
from tests.faults.stops import stopped_at
from tests.toys import Notes, picture_folder

Batches = list[tuple[Tensor, Tensor]]
D = torch.tensor([[3.0, -4.0], [0.2, 1.0], [1.0, 1.0]], dtype=torch.float64)
START = torch.tensor([[0.1, 0.2], [0.3, -0.4], [0.5, 0.6]], dtype=torch.float64)


def loss_at(radius: float, norm: Any) -> tuple[float, Tensor]:
    """A smooth loss at the projected weights, and its gradient by them."""
    w = (START + shares(torch.tensor(radius, dtype=torch.float64), lengths(D, norm)) * D).requires_grad_()
    loss = (w.sin() * torch.arange(1.0, 7.0, dtype=torch.float64).view(3, 2)).sum() + w.square().sum()
    [gradient] = torch.autograd.grad(loss, [w])
    return float(loss.detach()), gradient


@pytest.mark.parametrize(("norm", "radius"), [("mars", 0.4), ("mars", 1.5), ("mars", 5.0), ("mars", 9.0), ("l2", 0.7), ("l2", 9.0)])
def test_the_slope_by_the_radius_is_that_of_finite_differences(norm: Any, radius: float) -> None:
    """Rows of lengths 7, 1.2 and 2 are held back by some radii and not by others."""
    found = float(slope_inside(loss_at(radius, norm)[1], D, lengths(D, norm), torch.tensor(radius, dtype=torch.float64)))
    step = 1e-6
    wanted = (loss_at(radius + step, norm)[0] - loss_at(radius - step, norm)[0]) / (2 * step)
    assert found == pytest.approx(wanted, abs=1e-7)


def test_a_ball_that_just_reaches_its_longest_row_can_narrow_again() -> None:
    gradient, length = torch.ones_like(D), lengths(D, "mars")
    touching = slope_inside(gradient * D.sign(), D, length, length.max())
    assert float(touching) == pytest.approx(1.0) and float(slope_inside(gradient, D, length, 2 * length.max())) == 0.0


def test_each_held_out_batch_is_made_once() -> None:
    """Three steps of two iterations go through six batches of a pass that has four, whose running pass a resume only makes anew."""
    made: list[int] = []

    def held_out() -> Iterator[tuple[Tensor, Tensor]]:
        for number in range(4):
            made.append(number)
            yield batch(950 + number)[:2]

    loop = Loop([TPGM(iterations=2)], epochs=1, steps=3)
    loop.tuner.prepare(DataPasses(training, held_out=held_out))
    loop.tuner.prepare = lambda _: None  # type: ignore[method-assign]  # The loop would give others.
    loop.run()
    assert made == [0, 1, 2, 3, 0, 1]


class Line(nn.Module):
    """Logits (w * x, 0) with one shared weight, then a head that leaves them as they are."""

    def __init__(self, rows: int = 1) -> None:
        super().__init__()
        self.body = nn.Linear(3, rows, bias=False, dtype=torch.float64)
        self.fc = nn.Linear(rows, 2, bias=False, dtype=torch.float64)
        nn.init.constant_(self.fc.weight, 0.0)
        with torch.no_grad():
            self.fc.weight[0] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x))  # type: ignore[no-any-return]


def trained(model: Line, method: TPGM, gradients: list[Tensor], held_out: Batches, lr: float = 1.0) -> list[Tensor]:
    """The weights of the body after each step of SGD along gradients that are given."""
    tuner = Tuner(model, [method], head="fc", epochs=1, steps_per_epoch=len(gradients))
    made = torch.optim.SGD(tuner.param_groups(lr=lr))
    tuner.scheduler(made)
    tuner.prepare(DataPasses(list, held_out=lambda: held_out))
    tuner.start_epoch(0)
    found = []
    for gradient in gradients:
        for group in made.param_groups:
            group["lr"] = lr
        model.body.weight.grad = gradient.clone()
        tuner.gradients_()
        made.step()
        found.append(model.body.weight.detach().clone())
    return found


@pytest.mark.parametrize("norm", ["mars", "l2"])
def test_in_a_convex_case_the_radius_finds_the_best_distance(norm: Any) -> None:
    """Training pulls the weight out for ever; 70 of 100 held-out pictures are of the first class, whose best logit is log(70 / 30)."""
    model = Line()
    nn.init.zeros_(model.body.weight)
    x = torch.zeros(100, 3, dtype=torch.float64)
    x[:, 0] = 1.0
    held_out = [(x, (torch.arange(100) >= 70).long())]
    out = torch.tensor([[-0.05, 0.0, 0.0]], dtype=torch.float64)
    found = trained(model, TPGM(norm=norm, radius_lr=0.005), [out] * 400, held_out)
    reach = [float(w[0, 0]) for w in found]
    assert reach[-1] == pytest.approx(math.log(7 / 3), abs=0.01)
    assert reach[5] < 0.3 and max(reach) < 1.1


def test_an_update_is_the_algorithm_written_out() -> None:
    """Three steps with two iterations each, over held-out batches that are taken in turn; a second row and the head's gradient take part."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Line(rows=2)
    stream = torch.Generator().manual_seed(1)
    gradients = [torch.randn(2, 3, generator=stream, dtype=torch.float64) for _ in range(3)]
    held_out = [(torch.randn(4, 3, generator=stream, dtype=torch.float64), torch.tensor([0, 1, 0, 1])) for _ in range(3)]
    start, head = model.body.weight.detach().clone(), model.fc.weight.detach().clone()
    found = trained(model, TPGM(iterations=2), gradients, held_out, lr=0.1)
    w, gamma, m, v, t = start.clone(), 0.0, 0.0, 0.0, 0
    for number, (gradient, mine) in enumerate(zip(gradients, found, strict=True)):
        d = w - 0.1 * gradient - start
        norms = d.abs().sum(1, keepdim=True)
        gamma = gamma if number else float(norms.min()) / 2
        for _ in range(2):
            gamma = min(max(gamma, 1e-8), float(norms.max()))
            at = torch.tensor(gamma, dtype=torch.float64, requires_grad=True)
            ratio = torch.where(norms >= at, at / norms, torch.ones_like(norms))
            x, y = held_out[t % 3]
            loss = F.cross_entropy(x @ (start + ratio * d).T @ head.T, y)
            [by_gamma] = torch.autograd.grad(loss, [at])
            t += 1
            m, v = 0.9 * m + 0.1 * float(by_gamma), 0.999 * v + 0.001 * float(by_gamma) ** 2
            gamma -= 0.01 * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
        gamma = min(max(gamma, 1e-8), float(norms.max()))
        w = start + (gamma / norms).clamp(max=1.0) * d
        assert torch.allclose(w, mine, rtol=0, atol=1e-12)
    assert float((w - start).abs().sum()) > 1e-2


def test_updates_come_every_so_often_and_at_the_end_of_each_epoch() -> None:
    model, method = Line(), TPGM(every=3)
    asked: list[int] = []
    steps = 5

    def held_out() -> Iterator[tuple[Tensor, Tensor]]:
        asked.append(1)
        yield torch.ones(2, 3, dtype=torch.float64), torch.tensor([0, 1])

    tuner = Tuner(model, [method], head="fc", epochs=1, steps_per_epoch=steps)
    made = torch.optim.SGD(tuner.param_groups(lr=0.1))
    tuner.scheduler(made)
    tuner.prepare(DataPasses(list, held_out=held_out))
    tuner.start_epoch(0)
    seen = []
    for _ in range(steps):
        model.body.weight.grad = torch.ones(1, 3, dtype=torch.float64)
        tuner.gradients_()
        made.step()
        seen.append(bool(asked))
        asked.clear()
    assert seen == [False, False, True, False, True]


def test_an_update_leaves_modes_statistics_gradients_and_generators_alone() -> None:
    loop = Loop([TPGM()], epochs=1, steps=1)
    loop.tuner.prepare(data())
    loop.model.train()
    loop.model.layer1[0].bn1.eval()  # As a method that freezes BatchNorm leaves it.
    loop.tuner.start_epoch(0)
    x, y, _ = batch(0)
    loop.tuner.loss(loop.model, x, y, F.cross_entropy).backward()
    loop.tuner.gradients_()
    modes = [module.training for module in loop.model.modules()]
    before = {name: buffer.clone() for name, buffer in loop.model.named_buffers()}
    gradients, drawn = [p.grad.clone() for p in loop.model.parameters()], torch.get_rng_state()  # type: ignore[union-attr]
    loop.optimizer.step()
    assert [module.training for module in loop.model.modules()] == modes
    assert all(torch.equal(buffer, before[name]) for name, buffer in loop.model.named_buffers())
    assert all(torch.equal(p.grad, old) for p, old in zip(loop.model.parameters(), gradients, strict=True))  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), drawn)


def test_a_loop_without_held_out_pictures_is_refused() -> None:
    loop = Loop([TPGM()])
    with pytest.raises(ValueError, match=r"tpgm must look at data first: add tuner.prepare"):
        loop.tuner.start_epoch(0)
    with pytest.raises(ValueError, match=r"rekindle.DataPasses\(training, held_out=others\)"):
        loop.tuner.prepare(training)
    with pytest.raises(ValueError, match="tpgm: there are no held-out pictures"):
        trained(Line(), TPGM(), [torch.ones(1, 3, dtype=torch.float64)], [])


@pytest.mark.parametrize("stop", [(0, 2), (1, 0), (2, 1)])
def test_a_resumed_run_ends_in_the_same_bits_and_asks_for_its_pictures(stop: tuple[int, int]) -> None:
    def made(seed: int) -> Loop:
        return Loop([TPGM(iterations=3), rekindle.L2()], hybrid(seed), keep_at=[stop])

    loop = made(0)
    whole = loop.run()
    other = made(9)
    other.load(loop.kept[stop])
    with pytest.raises(ValueError, match="tpgm looks at data in training too, so a resumed run needs them again"):
        other.tuner.start_epoch(stop[0])
    resumed = other.run()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_new_parameters_are_free_and_a_network_without_shared_ones_is_refused() -> None:
    loop = Loop([TPGM()], epochs=1)
    loop.run()
    radii = loop.tuner.methods[0].state_dict()["radii"]
    assert radii and not any(name.startswith("fc") for name in radii)
    with pytest.raises(ValueError, match="tpgm: the network shares no parameter with its source"):
        Tuner(hybrid(), [TPGM()], head="fc", source_names={}, epochs=1, steps_per_epoch=1)


FAST: dict[str, Any] = {"model": "tiny", "epochs": 2, "batch_size": 4, "lr": 0.01, "precision": "32", "image_size": 16, "test": False}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("pictures"), {"train": 6, "val": 2})


def test_fit_trains_on_what_is_not_held_out(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No held-out picture is in a training batch or shown to the linear probe, and radii see no other, so none of validation either."""
    seen: dict[str, set[int]] = {"batches": set(), "look": set(), "radii": set()}
    training, one_pass, look_at = Samples.training, job.one_pass, job.look_at

    def batches(self: Samples, rows: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        seen["batches"].update(self.indices[rows % len(self)].tolist())
        return training(self, rows, *rest)

    def radii(samples: Samples, *rest: Any) -> Iterator[tuple[Tensor, Tensor]]:
        seen["radii"].update(samples.indices.tolist())
        return one_pass(samples, *rest)

    def look(model: nn.Module, samples: Samples, *rest: Any) -> Any:
        seen["look"].update(samples.indices.tolist())
        return look_at(model, samples, *rest)

    monkeypatch.setattr(Samples, "training", batches)
    monkeypatch.setattr(job, "one_pass", radii)
    monkeypatch.setattr(job, "look_at", look)
    notes: list[str] = []
    run = rekindle.fit(pictures, method="l2+tpgm(held_out=0.4)", out=tmp_path, listener=Notes(notes), **FAST)
    dataset = open_data(str(pictures), seed=0)
    kept, held = withhold(dataset, 0.4, 0)
    assert seen == {"batches": set(kept.tolist()), "look": set(kept.tolist()), "radii": set(held.tolist())}
    assert f"images: {len(kept)} train, {len(held)} held out, 4 val." in " ".join(notes)
    names = [dataset.relative(path) for path in dataset.splits["train"].paths]
    files = json.loads((run.folder / "data.json").read_text("utf-8"))["files"]
    assert files["train"] == [names[row] for row in kept] and files["held_out"] == [names[row] for row in held]
    assert row_of(run.folder)["pictures"] == len(kept)
    assert f"on {len(kept)} pictures to tell" in " ".join((run.folder / "report.html").read_text("utf-8").split())
    [said] = [note for note in notes if note.startswith("tpgm: ")]
    assert said.startswith(f"tpgm: {len(held)} of the {len(kept) + len(held)} training pictures are held out")
    assert said in json.loads((run.folder / "data.json").read_text("utf-8"))["notes"]


@pytest.mark.parametrize("step", [0, 2])
def test_a_fit_that_is_stopped_goes_on_to_the_same_bits(step: int, pictures: Path, tmp_path: Path) -> None:
    options = {"data": pictures, "method": "l2+tpgm(iterations=2)", **FAST, "epochs": 3}
    whole = rekindle.fit(**options, out=tmp_path / "whole", keep_checkpoints=True)
    with stopped_at(1, step) as stop:
        rekindle.fit(**options, out=tmp_path / "stopped")
    assert_equal_runs(rekindle.fit(resume=stop.folder).folder, whole.folder, 3)


def test_of_each_class_a_share_is_held_out_but_never_the_last_picture(pictures: Path) -> None:
    dataset = open_data(str(pictures), seed=0)
    labels = dataset.splits["train"].labels
    for share, wanted in ((0.01, 1), (0.34, 2), (0.99, 5)):
        kept, held = withhold(dataset, share, 3)
        assert sorted([*kept.tolist(), *held.tolist()]) == list(range(len(labels)))
        assert labels[held].bincount().tolist() == [wanted] * len(dataset.classes)
    draws = {tuple(withhold(dataset, 0.34, seed)[1].tolist()) for seed in (3, 3, 4, 5, 6)}
    assert 2 <= len(draws) <= 4


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"per_class": 1}, "--per-class 1 leaves none to spare; give --per-class 2 or more, or leave tpgm out"),
        ({"fraction": 0.01}, "--fraction 0.01 leaves none to spare; give a larger one, or leave tpgm out"),
        ({"group_pattern": "(train|val)"}, "are in 1 group, which leaves none to spare; add groups, or leave tpgm out"),
    ],
)
def test_where_nothing_can_be_held_out_the_cause_is_named(options: dict[str, Any], cause: str, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(rekindle.UserError, match=cause):
        rekindle.fit(pictures, method="tpgm", out=tmp_path, **options, **FAST)


def test_a_class_of_one_group_has_none_held_out(pictures: Path) -> None:
    plain = open_data(str(pictures), seed=0)
    groups = {picture: picture.parent.name if "0" in picture.parent.name else str(picture) for picture in plain.splits["train"].paths}  # type: ignore[union-attr]
    held = withhold(replace(plain, groups=groups), 0.3, 0)[1]
    assert set(plain.splits["train"].labels[held].tolist()) == {1}


def test_no_group_is_torn(pictures: Path) -> None:
    plain = open_data(str(pictures), seed=0)
    groups = {picture: str(number % 4) for number, picture in enumerate(plain.splits["train"].paths)}
    kept, held = withhold(replace(plain, groups=groups), 0.3, 0)
    apart = [{groups[plain.splits["train"].paths[row]] for row in rows.tolist()} for rows in (kept, held)]
    assert all(apart) and not apart[0] & apart[1]
