"""Model soups: the mean of the weights of several finished runs, which costs no more to predict with than one of them.

Wortsman and others: Model soups, ICML 2022 (arXiv 2203.05482), section 2. The uniform soup is the mean of all. The greedy one begins with
the run that is best on validation and adds the others in that order, each only where the mean does not become worse by it; the authors'
code asks for a gain. Runs that began from the same weights lie close enough for a mean to be a network at all.
"""

import copy
import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rekindle import data as data_room
from rekindle import models
from rekindle.analysis.calibration import at_temperature, fit_temperature
from rekindle.data.prefetch import choose_workers
from rekindle.data.samples import Preprocessing, Samples, samples_by_split
from rekindle.errors import Busy, UserError, number_of, some
from rekindle.files import expand
from rekindle.fitting.ending import figures, learn_familiarity
from rekindle.fitting.folder_names import check_free, check_name, slug
from rekindle.fitting.run_lock import BUSY, run_lock
from rekindle.fitting.withholding import HELD_OUT, divided, withheld_share
from rekindle.records import DATA, RESULT, read_recipe, read_spec
from rekindle.registry import parse, parse_augment
from rekindle.run import Run, open_folder, write_predictions
from rekindle.spec import check_value
from rekindle.training.listener import Listener
from rekindle.training.mixing import differing_norms, first_views, mean_weights, reestimate_
from rekindle.training.trainer import answers_to
from rekindle.training.watching import watching

Kind = Literal["greedy", "uniform"]
ALIKE = {
    "model": "networks", "head": "heads", "head_type": "heads", "classes": "classes", "image_size": "sizes of pictures", "mean": "preprocessing",
    "std": "preprocessing", "interpolation": "preprocessing",
}  # fmt: skip


def soup(
    runs: Sequence[str | Path],
    kind: Kind = "greedy",
    *,
    out: str | Path = "runs",
    name: str | None = None,
    listener: Listener | None = None,
) -> Run:
    """Average the weights of finished runs into a run folder, which predicts, exports and compares as any other.

    Args:
        runs: Folders of two or more finished runs with the same network, classes, source weights and pictures in each split.
        kind: "greedy" takes those that do not make validation worse, "uniform" all.
        out: Folder in which the soup's own folder is made.
        name: Of that folder; None makes one of data, model and id.
        listener: Called with progress; None shows it on a terminal or in a notebook.

    Returns:
        The soup; one that was made before is returned as it is.

    Raises:
        UserError: If the runs cannot be averaged, or their pictures are no longer what they were.
        Busy: If another command works in the folder.
    """
    check_value("--kind", kind, Kind)
    if name is not None:
        check_name(name)
    finished = [Run(Path(run)) for run in runs]
    _check_alike(finished, kind)
    with watching(listener) as watcher:
        best_first = sorted(finished, key=_rank)
        made = hashlib.sha256(" ".join([kind, *(run.result["id"] for run in best_first)]).encode()).hexdigest()[:12]
        spec = read_spec(best_first[0].folder)
        usual = f"{slug(Path(spec.data.removeprefix('hf:')).name)}-{slug(spec.model)}-soup-{made}"
        folder = expand(out) / (name or usual)
        with run_lock(folder, watcher.note) as mine:
            if not mine:
                raise Busy(BUSY.format(folder=folder))
            check_free(folder, made)
            if (folder / "result.json").is_file():
                watcher.note(f"{folder} is finished already; nothing was averaged again.")
            else:
                _Averaging.over(best_first, watcher).run(kind, folder, made)
    return Run(folder)


def _rank(run: Run) -> tuple[float, float]:
    """Best on validation first, of equals the one with the least loss."""
    val = run.result.get("val", {"accuracy": 0.0, "loss": 0.0})
    return -val["accuracy"], val["loss"]


def _check_alike(runs: list[Run], kind: str) -> None:
    """Refuse runs that no mean can be taken of.

    Raises:
        UserError: Naming what differs.
    """
    if len({run.folder.resolve() for run in runs}) < max(2, len(runs)):
        raise UserError(
            f"a soup needs two or more different runs, found {' '.join(str(run.folder) for run in runs) or 'none'}: rekindle soup RUN RUN"
        )
    first, recipe, spec = runs[0], read_recipe(runs[0].folder), read_spec(runs[0].folder)
    files, shapes = _files(first), _shapes(first)
    for other in runs[1:]:
        theirs = read_recipe(other.folder)
        differing = [words for key, words in ALIKE.items() if recipe[key] != theirs[key]]  # type: ignore[literal-required]
        if read_spec(other.folder).weights != spec.weights:
            differing.append("source weights")
        if _pool(_files(other)) != _pool(files):
            differing.append("pictures in their splits (--seed divides them, where the folder does not)")
        if not differing and _shapes(other) != shapes:
            differing.append("layers")
        if differing:
            raise UserError(
                f"{first.folder} and {other.folder} have different {differing[0]}, so that no mean of their weights is a network."
            )
    if kind == "greedy" and any("val" not in run.result for run in runs):
        raise UserError("a greedy soup chooses by validation, which these runs have none of; give --kind uniform.")


def _files(run: Run) -> dict[str, list[str]]:
    return DATA.read(run.folder / "data.json")["files"]


def _pool(files: dict[str, list[str]]) -> dict[str, list[str]]:
    """The pictures of each split, where those that a method held out are training pictures: no run is measured on them."""
    others = {name: names for name, names in files.items() if name not in ("train", HELD_OUT)}
    return {**others, "train": sorted([*files["train"], *files.get(HELD_OUT, [])])}


def _weights(run: Run) -> dict[str, Tensor]:
    """Of the network that predicts. The products of LoRA are added to its layers: a mean of factors is no factor of the mean."""
    return run.model[0].state_dict()


def _shapes(run: Run) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in _weights(run).items()}


def _pictures(
    run: Run, dataset: data_room.Dataset, preprocessing: Preprocessing, device: torch.device, listener: Listener
) -> tuple[data_room.Dataset, dict[str, Samples]]:
    """The data of a run, with its notes, and its splits as it saw them: mirrored and augmented so, and without what its method held out."""
    spec = read_spec(run.folder)
    paths = [path for split in dataset.splits.values() for path in split.paths]
    pixels = data_room.Pixels.load(
        paths, preprocessing.edge, preprocessing.interpolation, cache=data_room.Cache.default(), note=listener.note,
        progress=lambda done: listener.progress("reading pictures", done, len(paths)),
    )  # fmt: skip
    options = {"workers": choose_workers(device), "augment": parse_augment(spec.augment or "none"), "views": spec.views}
    splits = samples_by_split(dataset, pixels, preprocessing, **options)
    methods = parse(spec.method, spec.defaults)
    if withheld_share(methods):
        dataset, kept, _ = divided(dataset, methods, spec.seed, spec.data)
        splits["train"] = splits["train"].subset(kept)
    said = DATA.read(run.folder / "data.json").get("notes", dataset.notes)
    return replace(dataset, notes=[note for note in said if note not in dataset.cautions]), splits


@dataclass
class _Averaging:
    """The runs, best first, with one network for all of them and their pictures.

    Attributes:
        runs: As given.
        weights: Of each.
        model: A network that any of them fits.
        recipe: How it was built.
        dataset: Of the best run, divided as it was there.
        splits: Its pictures, as it saw them.
        listener: Told of progress.
    """

    runs: list[Run]
    weights: list[dict[str, Tensor]]
    model: nn.Module
    recipe: dict[str, Any]
    dataset: data_room.Dataset
    splits: dict[str, Samples]
    listener: Listener
    began: float

    @classmethod
    def over(cls, runs: list[Run], listener: Listener) -> "_Averaging":
        """Read the runs and their pictures.

        Raises:
            UserError: If the pictures changed.
        """
        began = time.perf_counter()
        spec = read_spec(runs[0].folder)
        dataset = data_room.open_data(spec.data, **spec.data_options())
        if _pool(dataset.to_json()["files"]) != _pool(_files(runs[0])):
            raise UserError(f"the pictures of {spec.data} are no longer those that {runs[0].folder} was trained on; put them back.")
        model, recipe = copy.deepcopy(runs[0].model[0]), runs[0].model[1]
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dataset, splits = _pictures(runs[0], dataset, replace(Preprocessing.from_recipe(recipe), flip=spec.flip), device, listener)
        return cls(runs, [_weights(run) for run in runs], model.to(device), recipe, dataset, splits, listener, began)

    def run(self, kind: Kind, folder: Path, made: str) -> None:
        """Choose the runs, and write the folder of their mean."""
        places = self._greedy() if kind == "greedy" else list(range(len(self.runs)))
        self._load_mean(places)
        self.listener.note(f"the {kind} soup is the mean of {len(places)} of {number_of(len(self.runs), 'run')}.")
        self._write(folder, made, kind, places)

    def _greedy(self) -> list[int]:
        """Places of the runs that are taken; one that changes nothing for the better or worse is, unlike in the authors' code."""
        labels = self.splits["val"].labels
        taken, best = [0], self._right(self._validated([0]), labels)
        for place in range(1, len(self.runs)):
            right = self._right(self._validated([*taken, place]), labels)
            if right >= best:
                taken, best = [*taken, place], right
        return taken

    @staticmethod
    def _right(logits: Tensor, labels: Tensor) -> int:
        return int((logits.argmax(1) == labels).sum())

    def _validated(self, places: list[int]) -> Tensor:
        """Logits of a mean on validation."""
        self._load_mean(places)
        return self._logits("val")

    def _load_mean(self, places: list[int]) -> None:
        """Put the mean of some runs into the network."""
        chosen = [self.weights[place] for place in places]
        self.model.load_state_dict(mean_weights(chosen, [1 / len(chosen)] * len(chosen)))
        reestimate_(self.model, differing_norms(self.model, chosen), self._first_views())

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _first_views(self) -> Iterator[Tensor]:
        spec = read_spec(self.runs[0].folder)
        return first_views(self.splits["train"], spec.batch_size, spec.seed, self._device)

    def _logits(self, split: str) -> Tensor:
        """(N, C) of a split."""
        samples, told = self.splits[split], partial(self.listener.progress, f"measuring {split}")
        read = partial(samples.evaluation, device=self._device)
        return torch.cat(answers_to(torch.arange(len(samples)), read, self.model, samples.workers, told))

    def _write(self, folder: Path, made: str, kind: Kind, places: list[int]) -> None:
        """All files of a run folder but those of its epochs, which it had none of; the result last."""
        best, spec = self.runs[0].result, read_spec(self.runs[0].folder)
        found: dict[str, Tensor] = {
            name: self._logits(name) for name in ("val", "test") if name in self.splits and (name != "test" or spec.test)
        }
        if any(not logits.isfinite().all() for logits in found.values()):
            raise UserError("the outputs of the mean are not finite, so nothing was written; leave out runs that went astray.")
        temperature = fit_temperature(found["val"], self.splits["val"].labels) if "val" in found else 1.0
        answers = {name: at_temperature(logits, temperature) for name, logits in found.items()}
        folder.mkdir(parents=True, exist_ok=True)
        open_folder(folder, made, spec, self.dataset)
        write_predictions(folder, self.dataset, answers)
        learn_familiarity(folder, self.model, self.splits, answers, spec.seed, self._device, self.listener)
        models.save_model(folder, self.model, {**self.recipe, "merged": True, "temperature": temperature})
        names = [run.folder.name for run in self.runs]
        result: dict[str, Any] = {
            **{key: value for key, value in best.items() if key not in ("val", "test", "mix", "averaged", "tried", "timing")},
            "id": made, "method": f"{kind} soup of {some([self.runs[place].result['method'] for place in places], 3)}",
            "soup": {"kind": kind, "runs": names, "taken": [names[place] for place in places]},
            "cautions": list(self.dataset.cautions), **figures(found, answers, temperature, self.splits, self.dataset.classes),
            "timing": {
                "seconds": sum(run.result["timing"]["seconds"] for run in self.runs), "wall_seconds": time.perf_counter() - self.began,
                "finished": datetime.now().isoformat(" ", "minutes"),
            },
        }  # fmt: skip
        from rekindle.report.run_page import write_report
        from rekindle.report.run_pictures import Finished, write_pictures

        write_pictures(Finished(folder, [], result, self.dataset.find), self.listener.progress)
        write_report(folder, result)
        RESULT.write(folder / "result.json", result)
