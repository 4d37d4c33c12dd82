"""Each method and direction has a card that agrees with its code, and a paper in CITATION.cff."""

import ast
import csv
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rekindle.cli import main
from rekindle.method import Direction, Method, Net
from rekindle.methods._catalog import VARIANTS
from rekindle.methods.distillation._layers import stage_layers
from rekindle.methods.distillation.delta import DELTA
from rekindle.methods.noise.cnn_dropout import READERS, block_places
from rekindle.methods.penalties._fisher import MANY_CLASSES, MEMORY
from rekindle.models.stages import stages
from rekindle.models.structure import ENDS, SLOT, residual_blocks
from rekindle.registry import directions, methods, parse, parse_direction

ROOT = Path(__file__).resolve().parents[2]
CARDS = ROOT / "src/rekindle/methods/cards"
KINDS: dict[str, type[Method] | type[Direction]] = {**methods(), **directions()}
SECTIONS = (
    "What it does", "Formula", "When to use it", "Our defaults and the published ones", "What the reference code does differently", "Paper",
)  # fmt: skip
REFERENCES: list[dict[str, Any]] = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["references"]
WORDS = {"fc", "fea_map", "layer1", "requires_grad", *READERS, "cifar_resnet20"}  # In code marks, but neither methods nor options.
every_card = pytest.mark.parametrize("name", sorted(KINDS))


def text(name: str) -> str:
    return (CARDS / f"{name}.md").read_text("utf-8")


def sections(name: str) -> dict[str, str]:
    """Title of each paragraph that has one: all words up to the next such paragraph, on one line."""
    parts = re.split(r"^\*\*(.+?)\.\*\* ?", text(name).partition("\n\n")[2], flags=re.MULTILINE)
    return {title: " ".join(body.split()) for title, body in zip(parts[1::2], parts[2::2], strict=True)}


def marked(words: str) -> list[str]:
    """What stands in code marks, each on one line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", words)]


def options(span: str) -> dict[str, Any]:
    """The values in ``a=1, b="x"``; none of any other text."""
    try:
        call = ast.parse(f"f({span})", mode="eval").body
        assert isinstance(call, ast.Call)
        return {} if call.args else {keyword.arg or "**": ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError):
        return {}


def defaults(kind: type) -> dict[str, Any]:
    return {field.name: field.default for field in dataclasses.fields(kind) if field.init}


def test_the_parser_reads_options_alone() -> None:
    assert options('alpha=1e-4, scope="all"') == {"alpha": 1e-4, "scope": "all"}
    assert (
        options("model.requires_grad = False")
        == options("l2_sp(alpha=0.1)")
        == options("alpha")
        == options("SGD(weight_decay=alpha)")
        == {}
    )


def test_there_is_one_card_for_each_and_no_other() -> None:
    assert {path.stem for path in CARDS.glob("*.md")} == set(KINDS)
    assert {path.name for path in (ROOT / "docs/methods").iterdir()} == {path.name for path in CARDS.iterdir()}


@every_card
def test_form(name: str) -> None:
    lines = text(name).splitlines()
    assert lines[0].startswith(f"# {name}: ") and len(lines) <= 45 and max(map(len, lines)) <= 140
    found = sections(name)
    assert [title for title in found if title in SECTIONS] == list(SECTIONS)
    assert all(found.values())
    assert text(name).count("$") % 2 == 0 and text(name).count("`") % 2 == 0


@every_card
def test_stated_defaults_are_the_codes(name: str) -> None:
    first = re.split(r"[.:;]\s", sections(name)["Our defaults and the published ones"])[0]
    stated = {option: value for span in marked(first) for option, value in options(span).items()}
    have = defaults(KINDS[name])
    assert bool(stated) == bool(have)
    assert {option: have[option] for option in stated} == stated
    assert all(type(have[option]) is type(value) for option, value in stated.items())


@every_card
def test_every_option_preset_and_recipe_exists(name: str) -> None:
    kind = KINDS[name]
    for span in marked(text(name)):
        given = options(span)
        assert set(given) <= set(defaults(kind)), span
        if given:
            kind(**{**getattr(kind, "example", {}), **given})
        elif re.match(r"\+?[a-z]\w*\(", span):
            recipe = span.removeprefix("+")
            assert parse_direction(recipe) if recipe.partition("(")[0] in directions() else parse(recipe)
        elif re.fullmatch(r"[a-z]\w*", span) and not SLOT.fullmatch(span):
            assert span in {*KINDS, *VARIANTS, *defaults(kind), *WORDS}, span


@pytest.mark.parametrize("name", sorted({*KINDS, *VARIANTS}))
def test_the_command_prints_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    base = VARIANTS.get(name, (name, {}))[0]
    assert main(["methods", name]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(text(base).rstrip())
    described = re.findall(r"^- `(\w+)=.+` \(.+\): \S", printed.partition("## Options")[2], re.MULTILINE)
    assert described == list(defaults(KINDS[base]))


@every_card
def test_its_papers_are_cited(name: str) -> None:
    paper = sections(name)["Paper"]
    numbers = re.findall(r"arXiv (\d{4}\.\d{5})", f"{KINDS[name].paper} {paper}")
    cited = {reference.get("url", "").removeprefix("https://arxiv.org/abs/") for reference in REFERENCES}
    assert set(numbers) <= cited
    assert name == "plain_sum" or any(reference["title"] in paper for reference in REFERENCES)
    assert set(re.findall(r"arXiv (\d{4}\.\d{5})", KINDS[name].paper)) <= set(re.findall(r"\d{4}\.\d{5}", paper))


def test_citation_is_in_form() -> None:
    """What the schema of CFF 1.2.0 asks of a file and of each reference."""
    whole = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert whole["cff-version"] == "1.2.0" and {"message", "title", "authors", "version", "license"} <= set(whole)
    for reference in REFERENCES:
        assert reference["type"] in ("article", "conference-paper") and isinstance(reference["year"], int)
        assert reference["authors"] and all(set(author) == {"family-names", "given-names"} for author in reference["authors"])
        assert reference["type"] == "article" or reference["collection-title"]
    titles = [reference["title"] for reference in REFERENCES]
    assert len(set(titles)) == len(titles)
    papers = " ".join(sections(name)["Paper"] for name in KINDS)
    assert all(title in papers for title in titles)


def test_blocks_of_stochastic_depth() -> None:
    named = set(marked(sections("stochastic_depth")["Which blocks"]))
    assert {span for span in named if not SLOT.fullmatch(span)} == set(ENDS)
    assert {span for span in named if SLOT.fullmatch(span)} >= {"drop_path", "stochastic_depth"}


FAMILIES = {  # {torchvision network: (how the cards call it, has blocks, has places for dropout between convolutions)}
    "resnet18": ("ResNet", True, True),
    "wide_resnet50_2": ("Wide ResNet", True, True),
    "mobilenet_v2": ("MobileNet v2", True, True),
    "mnasnet0_5": ("MNASNet", True, True),
    "efficientnet_b0": ("EfficientNet", True, True),
    "convnext_tiny": ("ConvNeXt", True, False),
    "swin_t": ("Swin", True, False),
    "vit_b_16": ("ViT", True, False),
    "vgg11": ("VGG", False, False),
    "alexnet": ("AlexNet", False, False),
    "squeezenet1_1": ("SqueezeNet", False, False),
    "shufflenet_v2_x0_5": ("ShuffleNet", False, False),
    "densenet121": ("DenseNet", False, False),
}


@pytest.mark.parametrize("network", FAMILIES)
def test_families_that_the_cards_name(network: str) -> None:
    called, blocks, places = FAMILIES[network]
    depth, dropout = sections("stochastic_depth")["Which blocks"], sections("cnn_dropout")["Which networks"]
    taken, _, refused = depth.partition("Refused")
    assert [bool(re.search(rf"\b{called}\b", words)) for words in (taken, refused, dropout.partition("Others")[0])] == [
        blocks,
        not blocks,
        places,
    ]
    model = on_no_device(network)
    if blocks:
        assert residual_blocks(model, "stochastic_depth")
    for find, works in ((residual_blocks, blocks), (lambda net, _: block_places(net), places)):
        if not works:
            with pytest.raises(ValueError, match="residual block"):
                find(model, "a test")
    if places:
        assert block_places(model)


def on_no_device(network: str) -> torch.nn.Module:
    """A network of torchvision without memory for its weights."""
    from torchvision import models

    with torch.device("meta"):
        return models.get_model(network, weights=None)


def test_costs_of_preparation() -> None:
    model = on_no_device("resnet50")
    layers = stage_layers(Net(model, ("fc",), {}, stages(model, ("fc",)), "fc"))
    widths = [model.get_submodule(layer)[-1].conv3.out_channels for layer in layers]  # type: ignore[index, union-attr]
    said = sections("delta")["What the preparation costs"]
    assert " + ".join(map(str, widths)) in said
    assert f"{DELTA.batches} × {sum(widths)} = {DELTA.batches * sum(widths):,}".replace(",", " ") in said
    said = sections("l2_sp_fisher")["What the preparation costs"]
    together = MEMORY // sum(p.numel() for p in model.parameters())
    assert f"up to {MANY_CLASSES} source classes" in said and together == 5 and "five in ResNet-50" in said


TABLE = {  # {card: (column of RIFLE's Table 1, mean change of nine tasks as the card says it, all nine worse)}
    "dropout": ("Dropout", "-0.04 points on average", False),
    "dropconnect": ("DropConnect", "0.7 on average", True),
    "cnn_dropout": ("CNN-Dropout", "3.3 points on average", True),
    "stochastic_depth": ("Stochastic Depth", "15 on average", True),
    "cyclic_lr": ("Cyclic LR", "0.4 points on average", False),
    "disturb_label": ("Disturb Label", "mean change over nine tasks is 0.0", False),
}


@pytest.mark.parametrize("name", TABLE)
def test_published_numbers(name: str, shared: Path) -> None:
    column, said, worse = TABLE[name]
    with (shared / "paper_tables.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if (row["table"], row["regularizer"]) == ("1", "L2")]
    found = {method: {row["dataset"]: float(row["mean"]) for row in rows if row["method"] == method} for method in ("Original", column)}
    changes = [found[column][task] - found["Original"][task] for task in found["Original"]]
    [number] = re.findall(r"\d+(?:\.\d+)?", said)
    decimals = len(number.partition(".")[2])
    assert said in sections(name)["When to use it"] and len(changes) == 9
    assert abs(round(sum(changes) / 9, decimals)) == float(number)
    assert (max(changes) < 0) == worse
