"""Source classifier (oracles P1 to P4), LP-FT, and what RIFLE does to them."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rekindle import L2, L2SP, Rifle, Source, Tuner, models
from rekindle.method import Clock, DataPasses
from rekindle.methods.heads.lp_ft import LPFT, fit_head
from rekindle.methods.heads.source_classifier import NormScale, SourceClassifier
from rekindle.registry import methods
from rekindle.testing.network import Loop, batch, hybrid, passes
from rekindle.tuner.net import operate


def test_p1_normalise_and_scale() -> None:
    layer = NormScale(2, 10.0).double()
    h = torch.tensor([[3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    y = layer(h)
    assert y.tolist() == [[6.0, 8.0]]
    [gradient] = torch.autograd.grad(y[0, 0], h)
    assert gradient[0].tolist() == pytest.approx([1.28, -0.96])
    assert float(gradient[0] @ h[0]) == pytest.approx(0, abs=1e-14)


def test_p2_a_zero_vector() -> None:
    h = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    layer = NormScale(2, 10.0).double()
    y = layer(h)
    y.sum().backward()
    assert y.tolist() == [[0, 0]] and h.grad is not None and torch.isfinite(h.grad).all() and torch.isfinite(layer.gamma.grad).all()  # type: ignore[arg-type]


def grown(name: str, method: SourceClassifier, head_type: str = "auto") -> tuple[nn.Module, Source, Tuner]:
    module = models.build(name, weights="none").module.eval()
    source = Source(module)
    head = models.replace_classifier(module, 3, head_type=head_type)
    return module, source, Tuner(module, [method], source=source, head=head, epochs=1, steps_per_epoch=1)


@pytest.mark.parametrize(("name", "head_type"), [
    ("cifar_resnet8", "auto"), ("resnet10t", "auto"), ("torchvision:squeezenet1_1", "auto"), ("torchvision:squeezenet1_1", "linear"),
    ("vit_tiny_patch16_224", "auto"), ("convnext_atto", "auto"), ("torchvision:vgg11", "auto"),
])  # fmt: skip
def test_source_logits_come_through_unchanged(name: str, head_type: str) -> None:
    """The kept part gives, on the same image, exactly what the pre-trained network gave."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module, source, tuner = grown(name, SourceClassifier(hidden=7, activation="relu"), head_type)
        x = torch.randn(2, 3, 224, 224)
    kept = module.get_submodule(f"{tuner.net.classifier}.source")
    seen: list[torch.Tensor] = []
    kept.register_forward_hook(lambda *args: seen.append(args[2].flatten(1)))
    with torch.no_grad():
        assert module(x).shape == (2, 3)
        assert torch.equal(seen[0], source.model(x))
    assert all(name in tuner.net.source_names for name, _ in module.named_parameters() if ".source." in name)
    assert not any(name in tuner.net.source_names for name in tuner.net.head_parameters())


def test_p4_the_identity_at_the_start() -> None:
    """Where every vector has one length, the mean-length scale changes nothing."""
    layer = NormScale(2)
    model = nn.Sequential(layer)
    from rekindle.methods.heads.source_classifier import _mean_length

    x = torch.tensor([[3.0, 4.0], [0.0, 5.0], [-5.0, 0.0]])
    layer.restart(_mean_length(model, layer, DataPasses(lambda: [(x, torch.zeros(3))])))
    assert torch.allclose(layer(x), x)


def test_mean_length_is_measured_once_and_restored() -> None:
    method = SourceClassifier(gamma="mean", hidden=4)
    loop = Loop([method])
    loop.tuner.prepare(passes)
    starts = method.state_dict()["starts"]
    lengths = torch.cat([loop.tuner.source.model(x).norm(dim=1) for x, _ in passes()])
    assert starts[0] == pytest.approx(float(lengths.mean()), rel=1e-5) and len(starts) == 2
    other = SourceClassifier(gamma="mean", hidden=4)
    Loop([other])
    other.load_state_dict({"starts": starts})
    assert other.state_dict() == {"starts": starts}


def test_rifle_draws_the_new_layers_only_and_l2_sp_pulls_the_kept_one() -> None:
    loop = Loop([SourceClassifier(), L2SP(alpha=0.5), Rifle(periods=2)], epochs=2)
    before = loop.run(stop=(0, 2))
    loop = Loop([SourceClassifier(), L2SP(alpha=0.5), Rifle(periods=2)], epochs=2)
    loop.run(stop=(1, 0))
    after = loop.state()
    assert loop.tuner._restarted
    assert torch.equal(after["fc.scale.gamma"], torch.full((3,), 3**0.5))
    bound = 3**-0.5
    assert float(after["fc.linear.weight"].abs().max()) <= bound and not torch.equal(after["fc.linear.weight"], before["fc.linear.weight"])
    assert not torch.equal(after["fc.source.weight"], loop.tuner.source.tensors["fc.weight"]), "it trains"
    assert loop.tuner.net.source_names["fc.source.weight"] == "fc.weight"
    assert "fc.source.weight" in loop.tuner.methods[1].state_dict()["anchors"]


def test_a_source_without_one_classifier_is_refused() -> None:
    module = models.build("cifar_resnet8", weights="none").module
    with pytest.raises(ValueError, match="source_classifier: the source has no single classifier to keep"):
        operate(module, [SourceClassifier()], Source(nn.Linear(2, 2)), None)


@pytest.mark.parametrize(
    "bad", [{"hidden": -1}, {"hidden": (3, 0)}, {"hidden": 2.5}, {"gamma": 0.0}, {"gamma": "wide"}, {"activation": "gelu"}]
)
def test_bad_options(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=rf"source_classifier: {next(iter(bad))} must .*found {re.escape(repr(next(iter(bad.values()))))}"):
        SourceClassifier(**bad)  # type: ignore[arg-type]


def test_lp_ft_changes_nothing_but_the_head_and_starts_where_stage_one_ended() -> None:
    loop = Loop([LPFT(strengths=5)], hybrid().double())
    loop.model.train()
    before = loop.state()
    data = [(x.double(), y) for x, y in passes()]
    loop.tuner.prepare(lambda: data)
    after = loop.state()
    assert [key for key in before if not torch.equal(before[key], after[key])] == ["fc.weight", "fc.bias"], (
        "weights and BatchNorm's buffers stay"
    )
    loop.model.eval()
    features: list[torch.Tensor] = []
    loop.model.fc.register_forward_pre_hook(lambda module, inputs: features.append(inputs[0]))  # type: ignore[union-attr]
    with torch.no_grad():
        loss = torch.cat([nn.functional.cross_entropy(loop.model(x), y, reduction="none") for x, y in data]).mean()
    weight, bias = fit_head(torch.cat(features), torch.cat([y for _, y in data]), 5, 3, DataPasses(lambda: data))
    logits = torch.cat(features) @ torch.from_numpy(weight).T + torch.from_numpy(bias)
    assert float(loss) == pytest.approx(float(nn.functional.cross_entropy(logits, torch.cat([y for _, y in data]))), abs=1e-12)


def test_two_classes_get_half_the_logit_each() -> None:
    x = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    weight, bias = fit_head(x, y, 1, 0, DataPasses(list))
    assert weight.shape == (2, 3) and np.allclose(weight[0], -weight[1]) and np.allclose(bias[0], -bias[1])
    from sklearn.linear_model import LogisticRegression

    direct = LogisticRegression(C=1.0, max_iter=1000).fit(x.numpy(), y.numpy())
    assert np.allclose(weight[1], direct.coef_[0] / 2)


def test_lp_ft_rescales_to_the_default_initialisation() -> None:
    loop = Loop([LPFT(strengths=1, rescale=True)])
    loop.tuner.prepare(passes)
    assert float(loop.model.fc.weight.std(correction=0)) == pytest.approx(1 / (3 * 8) ** 0.5, rel=1e-5)  # type: ignore[union-attr, operator]


def test_lp_ft_refusals() -> None:
    with pytest.raises(ValueError, match="lp_ft and rifle do not go together: rifle draws the head anew"):
        Loop([LPFT(), Rifle(periods=2)])
    Loop([LPFT(), Rifle(periods=2, reinitialize=False)])
    with pytest.raises(ValueError, match="lp_ft: the head .* is not one linear layer"):
        Loop([SourceClassifier(), LPFT()])
    loop = Loop([LPFT(strengths=1)])
    with pytest.raises(ValueError, match="lp_ft: class 2 has no training image"):
        loop.tuner.prepare(lambda: [(batch(0)[0], batch(0)[1].clamp(max=1))])


def test_which_methods_refuse_each_other() -> None:
    made = [kind(**kind.example) for kind in methods().values()]
    assert {(one.name, other.name) for one in made for other in made if one.incompatible_with(other)} == {
        *(("lp_ft", name) for name in ("rifle", "later_layer_forgetting", "zapping", "knowledge_evolution", "layer_wise_reinit")),
        *(("freeze_batchnorm", name) for name in ("stoch_norm", "knowledge_evolution", "shrink_perturb")),
        *(
            ("lora", name)
            for name in ("knowledge_evolution", "shrink_perturb", "reinit_top", "later_layer_forgetting", "layer_wise_reinit")
        ),
        *((name, "source_classifier") for name in ("later_layer_forgetting", "layer_wise_reinit")),
    }


def test_the_grown_head_comes_back_in_predict(tmp_path: Path) -> None:
    import rekindle
    from tests.toys import picture_folder

    picture_folder(tmp_path / "data", {"train": 8, "val": 3})
    run = rekindle.fit(
        tmp_path / "data", model="tiny", method="source_classifier(hidden=5)+l2_sp", epochs=1, lr=0.01, batch_size=8, out=tmp_path / "runs"
    )
    [one] = run.predict([tmp_path / "data" / "val" / "class0" / "000.png"])
    rows = [line.split(",") for line in (run.folder / "predictions.csv").read_text().splitlines()]
    [row] = [row for row in rows if row[1].endswith("class0/000.png")]
    assert one.classes == [row[3]] and one.confidences[0] == pytest.approx(float(row[4]), abs=1e-5)
    assert "linear.source.weight" in run.model[0].state_dict()


def test_scales_are_not_pulled_to_zero() -> None:
    """The default of the source classifier: its gamma is new, but no penalty shrinks it."""
    for penalty in (L2(alpha=0.1), L2SP(beta=0.1)):
        model = hybrid()
        Tuner(model, [SourceClassifier(), penalty], head="fc", epochs=1, steps_per_epoch=1)
        pulled = {id(p) for p, _ in penalty.gradient(Clock(0, 1))}
        assert id(model.fc.linear.weight) in pulled and id(model.fc.source.weight) in pulled  # type: ignore[union-attr]
        assert id(model.fc.scale.gamma) not in pulled  # type: ignore[union-attr]
