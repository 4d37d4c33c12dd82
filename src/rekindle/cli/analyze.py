"""The commands `rekindle analyze` and `rekindle rank`: what runs recorded, the oracle experiment, and networks ranked before training."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from rekindle.cli.output import add_command, option_texts, table
from rekindle.cli.run_names import HELP, find_run
from rekindle.errors import UserError, number_of
from rekindle.oracle.settings import OracleSettings
from rekindle.training.progress import ProgressBar

OK = 0
KINDS = {
    "gradient-norms": ("draw the gradient norms of runs made with --record gradient_norms (the RIFLE paper's Figure 2)",
                       "rekindle analyze gradient-norms runs/l2-… runs/rifle-…"),
    "learning-curves": ("draw training and test accuracy by epoch of runs made with --test-every-epoch (the RIFLE paper's Figure 1)",
                        "rekindle analyze learning-curves runs/l2-… runs/rifle-…"),
    "weight-distance": ("show how far each layer of finished runs has moved from its pre-trained weights",
                      "rekindle analyze weight-distance runs/l2-… runs/l2_sp-…"),
}  # fmt: skip


def register(commands: Any) -> None:
    """Add both commands."""
    _register_rank(commands)
    group = add_command(commands, "analyze", "look into finished runs, or run the RIFLE paper's oracle experiment",
                        "rekindle analyze weight-distance runs/photos-…")  # fmt: skip
    parts = group.add_subparsers(title="analyses", required=True, metavar="ANALYSIS")
    for kind, (text, example) in KINDS.items():
        command = add_command(parts, kind, text, example)
        command.add_argument("runs", nargs="+", help=f"{HELP}, each")
        command.add_argument("--out", help="folder for picture and numbers (default: the run's own; 'analysis' for several runs)")
        command.add_argument("--json", action="store_true", help="print the numbers as JSON")
        command.set_defaults(act=_analyze, kind=kind)
    oracle = add_command(parts, "mlp-oracle", "run the RIFLE paper's experiment with known teachers: every method at every learning rate and noise",
                      "rekindle analyze mlp-oracle --seeds 10 --out oracle")  # fmt: skip
    texts = option_texts(OracleSettings)
    for field in dataclasses.fields(OracleSettings):
        default: Any = field.default
        many = isinstance(default, tuple)
        shown = ",".join(f"{value:g}" for value in default) if many else f"{default:g}"
        kind_of: Any = str if many else type(default)
        text = f"{texts[field.name]}{', joined by commas' if many else ''} (default: {shown})"
        oracle.add_argument(f"--{field.name.replace('_', '-')}", type=kind_of, default=argparse.SUPPRESS, help=text)
    oracle.add_argument("--out", default="mlp_oracle", help="folder for table, numbers and picture (default: mlp_oracle)")
    oracle.add_argument("--json", action="store_true", help="print a row for each seed as JSON")
    oracle.set_defaults(act=_oracle)


def _register_rank(commands: Any) -> None:
    command = add_command(commands, "rank", "guess which pre-trained networks suit your pictures, without training",
                       "rekindle rank photos/ --models resnet18,convnext_tiny,tiny")  # fmt: skip
    command.add_argument("data", help="folder of photographs, as for fit; only its training pictures are looked at")
    command.add_argument(
        "--models",
        required=True,
        metavar="A,B,C",
        help="networks joined by commas, each NAME or NAME=WEIGHTS.safetensors, with names as for fit",
    )
    command.add_argument("--image-size", type=int, default=0, help="edge of the crop in pixels (default: what each network was trained on)")
    command.add_argument("--per-class", type=int, default=0, help="look at this many pictures a class (default: all)")
    command.add_argument("--seed", type=int, default=0, help="random seed of splits and subsets (default: 0)")
    command.add_argument("--out", default="rank", help="folder for picture and numbers (default: rank)")
    command.add_argument("--json", action="store_true", help="print the scores as JSON")
    command.set_defaults(act=_rank)


def _rank(options: argparse.Namespace) -> int:
    from rekindle.analysis.ranking import ADVICE, SCORES, rank
    from rekindle.report.ranking import write_ranking

    with ProgressBar() as bar:
        ranking = rank(
            options.data,
            options.models.split(","),
            image_size=options.image_size,
            per_class=options.per_class,
            seed=options.seed,
            listener=bar,
        )
    paths = write_ranking(ranking, Path(options.out))
    if options.json:
        print(json.dumps(ranking.to_dict()))
        return OK
    rows = []
    for one in ranking.candidates:
        answers = "-" if one.leep is None else f"{one.leep:.4f}"
        rows.append([one.label, str(one.image_size), str(one.features), f"{one.logme:.4f}", answers, f"{one.h_score:.3f}"])
    table(["network", "pixels", "features", "LogME", "LEEP", "H-score"], rows)
    _end(
        [f"{number_of(ranking.pictures, 'training picture')}, {number_of(len(ranking.classes), 'class')}.", *SCORES.values(), ADVICE], paths
    )
    return OK


def _analyze(options: argparse.Namespace) -> int:
    from rekindle.report.analyses import analyze

    runs = [find_run(run) for run in options.runs]
    analysis = analyze(options.kind, runs)
    paths = analysis.write(Path(options.out or (runs[0] if len(runs) == 1 else "analysis")))
    if options.json:
        print(json.dumps(analysis.values))
        return OK
    table(analysis.header, analysis.rows)
    _end(analysis.notes, paths)
    return OK


def _oracle(options: argparse.Namespace) -> int:
    from rekindle.oracle.experiment import run_oracle
    from rekindle.oracle.settings import OracleSettings
    from rekindle.oracle.tables import brief, write_oracle

    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(OracleSettings) if hasattr(options, field.name)}
    read: dict[str, Any] = {name: _numbers(name, value) if isinstance(value, str) else value for name, value in given.items()}
    settings = OracleSettings(**read)
    with ProgressBar() as bar:
        rows = run_oracle(settings, bar.progress)
    paths = write_oracle(Path(options.out), rows, settings)
    if options.json:
        print(json.dumps(rows))
        return OK
    table(*brief(rows))
    _end(["each method at the learning rate with the least validation error; every cell stands in the table file."], paths)
    return OK


def _numbers(name: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--{name} takes numbers joined by commas, such as 0.01,0.1; found {text!r}.") from None


def _end(notes: list[str], paths: list[Path]) -> None:
    print("\n".join([*notes, *(f"written: {path}" for path in paths)]))
