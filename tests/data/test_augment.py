"""Augmentation is torchvision's, drawn from (seed, epoch, sample) alone; mixed labels go through the loss as they should."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torchvision.transforms import v2

import rekindle
from rekindle.data import Pixels, train_batch
from rekindle.data.augment import Augment, UseGenerator
from rekindle.fitting.choices import automatic_augment
from rekindle.records import read_spec
from rekindle.registry import parse_augment
from rekindle.report.run_pictures import _label
from rekindle.rng import keyed_generator
from rekindle.training.criterion import CrossEntropy
from tests.toys import TINY_RUN, picture_folder

DRAWS = True

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FILL = [124, 116, 104]
SINGLE = {
    "randaugment(num_ops=3, magnitude=12)": v2.RandAugment(3, 12, fill=FILL), "color_jitter(hue=0.2)": v2.ColorJitter(0.4, 0.4, 0.4, 0.2),
    "trivial_augment": v2.TrivialAugmentWide(fill=FILL), "random_erasing(p=0.8)": v2.RandomErasing(0.8, (0.02, 0.33), value=FILL),
}  # fmt: skip


def augment(text: str) -> Augment:
    made = parse_augment(text)
    assert made is not None
    return made


def crops(count: int = 12, size: int = 20) -> torch.Tensor:
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("text", SINGLE)
def test_a_picture_becomes_what_torchvision_makes_of_it_under_that_seed(text: str) -> None:
    """torchvision draws from the global generator: seeded with the sample's key, it gives our picture."""
    found = crops()
    augment(text).pictures_(found, list(range(50, 62)), 3, 7, MEAN)
    for image, crop, sample in zip(found, crops(), range(50, 62), strict=True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(keyed_generator(3, "augment more", 7, sample).initial_seed())
            wanted = np.array(SINGLE[text](Image.fromarray(crop.numpy())))
        assert np.array_equal(image.numpy(), wanted)
    assert not torch.equal(found, crops())


@pytest.mark.parametrize("text", SINGLE)
def test_a_draw_depends_on_seed_epoch_and_sample_alone(text: str) -> None:
    def made(rows: list[int], seed: int = 1, epoch: int = 2) -> torch.Tensor:
        found = crops()[rows]
        augment(text).pictures_(found, rows, seed, epoch, MEAN)
        return found

    rows = list(range(12))
    whole = made(rows)
    state = torch.random.get_rng_state()
    assert torch.equal(torch.cat([made(rows[i : i + 5]) for i in range(0, 12, 5)]), whole)
    assert torch.equal(made(rows[::-1]), whole.flip(0))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.equal(made(rows, seed=2), whole)
    assert not torch.equal(made(rows, epoch=3), whole)


@pytest.mark.parametrize(("text", "kind"), [("mixup(alpha=0.7)", v2.MixUp), ("cutmix(alpha=0.7)", v2.CutMix)])
def test_mixing_is_torchvisions_and_leaves_the_global_generator_alone(text: str, kind: type) -> None:
    x, y = torch.randn(6, 3, 20, 20), torch.tensor([0, 1, 2, 2, 1, 0])
    state = torch.random.get_rng_state()
    found, shares = augment(text).mix(x, y, 4, 1, 2, [5, 3, 9, 8, 7, 6])
    assert torch.equal(torch.random.get_rng_state(), state)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(keyed_generator(1, "mix", 2, 5, 3, 9, 8, 7, 6).initial_seed())
        wanted = kind(alpha=0.7, num_classes=4)(x, y)
    assert torch.equal(found, wanted[0])
    assert torch.equal(shares, wanted[1])
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(shares.sum(1), torch.ones(6))
    assert not torch.equal(augment(text).mix(x, y, 4, 1, 3, [5, 3, 9, 8, 7, 6])[1], shares)


def test_of_two_that_mix_each_batch_gets_one() -> None:
    x, y = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 3, 16, 16), torch.arange(4)
    kinds = set()
    for epoch in range(40):
        found, shares = augment("mixup(alpha=5.0)+cutmix(alpha=5.0)").mix(x, y, 4, 0, epoch, [0, 1, 2, 3])
        blended = len(found[1, 0].unique()) == 1 and 0 < float(shares[1].max()) < 1
        kinds.add("mixup" if blended else "cutmix")
        if not blended and len(found[1, 0].unique()) == 2:
            share = (found[1, 0] == 1).float().mean()
            torch.testing.assert_close(shares[1, 1], share)
    assert kinds == {"mixup", "cutmix"}


def test_drawing_is_for_one_thread_and_gives_what_the_generator_gives() -> None:
    with UseGenerator(torch.Generator().manual_seed(5)):
        found = [
            torch.rand(3),
            torch.empty(2).uniform_(1, 2),
            torch.randint(9, (4,)),
            torch.randperm(6),
            torch.multinomial(torch.ones(3), 1),
        ]
    stream = torch.Generator().manual_seed(5)
    wanted = [torch.rand(3, generator=stream), torch.empty(2).uniform_(1, 2, generator=stream), torch.randint(9, (4,), generator=stream),
              torch.randperm(6, generator=stream), torch.multinomial(torch.ones(3), 1, generator=stream)]  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_crop_and_mirror_stay_what_they_are_without_it(tmp_path: Path) -> None:
    """Erasing with probability 0 draws, and changes nothing; the mean colour is what erasing fills with."""
    paths = sorted((picture_folder(tmp_path, {"": 6}) / "class0").iterdir())
    pixels = Pixels.load(paths, 40)
    options: dict[str, Any] = {"image_size": 32, "flip": True, "seed": 0, "epoch": 1, "mean": MEAN, "std": STD}
    plain = train_batch(pixels, torch.arange(6), **options)
    assert torch.equal(train_batch(pixels, torch.arange(6), **options, augment=augment("random_erasing(p=0)")), plain)
    erased = train_batch(pixels, torch.arange(6), **options, augment=augment("random_erasing(p=1)"))
    changed = (erased != plain).any(1)
    assert (changed.float().mean((1, 2)) > 0.01).all()
    assert erased.permute(0, 2, 3, 1)[changed].abs().max() < 0.02


LOGITS, Y = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 3, 2, 2, 1])
OTHER = torch.tensor([1, 3, 0, 1, 2])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 1.0, 0.25], dtype=torch.float64)])
def test_the_loss_of_shares_is_the_shares_of_the_losses(smoothing: float, weights: torch.Tensor | None) -> None:
    criterion = CrossEntropy(smoothing, weights)
    shares = 0.7 * F.one_hot(Y, 4).double() + 0.3 * F.one_hot(OTHER, 4).double()
    torch.testing.assert_close(criterion(LOGITS, shares), 0.7 * criterion(LOGITS, Y) + 0.3 * criterion(LOGITS, OTHER))
    torch.testing.assert_close(criterion(LOGITS, F.one_hot(Y, 4).double()), criterion(LOGITS, Y))


def test_pictures_show_their_shares() -> None:
    names = ["hat", "shoe", "dress"]
    assert _label(torch.tensor(1), names) == "shoe"
    assert _label(torch.tensor([0.25, 0.0, 0.75]), names) == "75% dress 25% hat"
    assert _label(torch.tensor([0.0, 1.0, 0.0]), names) == "shoe"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mixop", "there is no augmentation 'mixop'; did you mean mixup"),
        ("mixup+mixup", "names an augmentation more than once"),
        ("mixup(beta=1)", "mixup has no option 'beta'; it has alpha"),
        ("mixup(alpha=0)", "mixup: alpha must .*0.001 .*100, found 0"),
        ("randaugment(magnitude=31)", "randaugment: magnitude must .*whole number .*0 .*30, found 31"),
        ("color_jitter(hue=0.6)", "color_jitter: hue must .*0 .*0.5, found 0.6"),
        ("random_erasing(least=0.5)", "random_erasing: most must .*least, 0.5, found 0.33"),
        ("random_erasing(most=1.5)", "random_erasing: most must .*1, found 1.5"),
        ("cutmix)", "cannot be read; write it like"),
        ("cutmix(1.0)", r"write each part as name or name\(option=value\), joined by '\+'"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(rekindle.UserError, match=message):
        parse_augment(text)


@pytest.mark.parametrize("method", ["disturb_label", "l2_sp+co_tuning"])
def test_methods_that_need_whole_labels_are_refused_beside_mixing(method: str, tmp_path: Path) -> None:
    message = r"mixup and cutmix give a picture shares of two classes, but (disturb_label|co_tuning) needs one class a picture"
    with pytest.raises(rekindle.UserError, match=message):
        rekindle.fit(tmp_path, model="tiny", method=method, augment="cutmix")


def test_it_is_part_of_the_run_and_chosen_by_weights_and_network() -> None:
    spec = rekindle.RunSpec(data="x")
    whole, depthwise = nn.Sequential(nn.Conv2d(4, 4, 3)), nn.Sequential(nn.Conv2d(4, 4, 3, groups=4))
    assert spec.augment == "auto" and automatic_augment(spec, whole) == "trivial_augment"
    assert automatic_augment(spec, depthwise) is None is automatic_augment(replace(spec, weights="none"), whole)
    ids = {replace(spec, augment=one).run_id("d", "w") for one in ("auto", None, "trivial_augment", "mixup")}
    assert len(ids) == 4


def test_rekindle_0_1_had_none_and_its_runs_keep_their_ids() -> None:
    old = rekindle.RunSpec(data="x", defaults="0.1")
    assert old.augment is None and "augment" not in old.identity()


def test_a_run_writes_down_what_it_chose(tmp_path: Path) -> None:
    data = picture_folder(tmp_path / "data", {"train": 8, "val": 4})
    first = rekindle.fit(data, out=tmp_path / "runs", **{**TINY_RUN, "weights": "none"})
    weights = first.folder / "model.safetensors"
    run = rekindle.fit(data, out=tmp_path / "runs", **{**TINY_RUN, "weights": str(weights)})
    assert (read_spec(first.folder).augment, read_spec(run.folder).augment) == (None, "trivial_augment")
    plain = rekindle.fit(data, out=tmp_path / "runs", augment="none", **{**TINY_RUN, "weights": str(weights)})
    assert plain.folder != run.folder and read_spec(plain.folder).augment is None


def test_a_run_with_everything_learns(tmp_path: Path) -> None:
    data = picture_folder(tmp_path / "data", {"train": 16, "val": 8})
    run = rekindle.fit(data, out=tmp_path / "runs", model="cifar_resnet8", weights="none", image_size=32, epochs=8, lr=0.05, batch_size=8,
                       augment="random_erasing+mixup(alpha=0.2)", class_weights="balanced", label_smoothing=0.1, method="l2")  # fmt: skip
    assert run.result["val"]["accuracy"] > 0.9
    assert np.isfinite([line["train"]["loss"] for line in run.history]).all()
    assert (run.folder / "samples.png").stat().st_size > 0
