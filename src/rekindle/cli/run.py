"""The commands on finished runs: predict, evaluate, compare."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from rekindle.cli.output import add_command, add_json, show, table
from rekindle.files import csv_text

OK = 0


def register(commands: Any) -> None:
    """Add the three commands."""
    predict = add_command(commands, "predict", "classify new pictures with a finished run", "rekindle predict runs/photos-… new/ --top-k 3")
    predict.add_argument("run", help="run folder")
    predict.add_argument("files", nargs="+", help="picture files, or folders of them")
    predict.add_argument("--top-k", type=int, default=1, help="classes a picture (default: 1)")
    predict.add_argument("--out", help="write here instead of to the terminal")
    add_json(predict, "JSON instead of CSV")
    predict.set_defaults(act=_predict)
    evaluate = add_command(
        commands, "evaluate", "measure a finished run on other labelled pictures", "rekindle evaluate runs/photos-… more-photos/"
    )
    evaluate.add_argument("run", help="run folder")
    evaluate.add_argument("data", help="FOLDER/CLASS/picture.jpg, or anything else that fit takes, whose test split is then measured")
    add_json(evaluate, "JSON instead of a table")
    evaluate.set_defaults(act=_evaluate)
    compare = add_command(commands, "compare", "put finished runs side by side, with paired statistics", "rekindle compare runs/a runs/b")
    compare.add_argument("runs", nargs="+", help="run folders")
    add_json(compare, "JSON instead of tables")
    compare.set_defaults(act=_compare)


def _predict(options: argparse.Namespace) -> int:
    from rekindle.data.formats.folder_walk import find_new
    from rekindle.data.formats.names import printable
    from rekindle.run import Run

    run, new = Run(Path(options.run)), find_new(options.files)
    found = [dataclasses.replace(row, path=printable(row.path)) for row in run.predict(new.paths, options.top_k)]
    text = (
        json.dumps([dataclasses.asdict(row) for row in found], indent=2, ensure_ascii=False) + "\n"
        if options.json
        else _csv(found, options.top_k)
    )
    if options.out:
        from rekindle.files import write_atomic

        write_atomic(Path(options.out), text)
    else:
        sys.stdout.write(text)
    for sentence in new.told():
        print(f"rekindle: {sentence}", file=sys.stderr)
    broken = sum(bool(row.error) for row in found)
    if broken:
        print(f"rekindle: {broken} of {len(found)} files could not be classified; their rows say why.", file=sys.stderr)
    return OK if broken < len(found) else 1


def _csv(found: list[Any], top_k: int) -> str:
    rows = []
    for row in found:
        cells = [cell for pair in zip(row.classes, row.confidences, strict=True) for cell in pair]
        rows.append([row.path, *cells, *[""] * (2 * top_k - len(cells)), row.error])
    return csv_text(["path", *(f"{kind}_{place}" for place in range(1, top_k + 1) for kind in ("class", "confidence")), "error"], rows)


def _evaluate(options: argparse.Namespace) -> int:
    from rekindle.run import Run

    figures = Run(Path(options.run)).evaluate(options.data)
    if options.json:
        print(json.dumps(figures))
        return OK
    print(
        f"accuracy {100 * figures['accuracy']:.1f} % of {figures['count']} pictures, calibration error {figures['calibration_error']:.3f}"
    )
    rows = [
        [row["name"], f"{row['precision']:.3f}", f"{row['recall']:.3f}", f"{row['f1']:.3f}", str(row["support"])]
        for row in figures["per_class"]
    ]
    table(["class", "precision", "recall", "F1", "pictures"], rows)
    return OK


def _compare(options: argparse.Namespace) -> int:
    from rekindle.report.compare import compare

    found = compare([Path(run) for run in options.runs])
    if options.json:
        print(json.dumps(found.to_dict()))
        return OK
    show(found.to_rich())
    return OK
