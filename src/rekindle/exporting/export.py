"""One call from a finished run to files for elsewhere, each checked against the run before it counts."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rekindle.errors import UserError
from rekindle.exporting.onnx_graph import to_onnx
from rekindle.exporting.parity import Parity, answers_of_onnx, answers_of_run, compare, require_parity
from rekindle.exporting.pictures import OwnPictures, own_pictures
from rekindle.exporting.timm_folder import answers_of_timm, write_timm_folder
from rekindle.files import expand, write_atomic, write_json
from rekindle.method import noop
from rekindle.run import Run

FORMATS = ("onnx", "timm")
SCRIPT = Path(__file__).resolve().parents[1] / "assets" / "classify.py.txt"


@dataclass(frozen=True)
class Exported:
    """What `export` wrote.

    Attributes:
        folder: Where it lies.
        parity: How near each format is to the run, by format.
        int8: Of the quantised graph: pictures, accuracy, and accuracy in float32; None where there is none.
    """

    folder: Path
    parity: dict[str, Parity]
    int8: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As export.json holds it.

        Returns:
            Plain values.
        """
        return {"parity": {name: asdict(parity) for name, parity in self.parity.items()}, "int8": self.int8}


def export(
    run: str | Path, *, formats: Sequence[str] = ("onnx",), int8: bool = False, data: str | None = None, out: str | Path | None = None,
    progress: Callable[[str], object] = noop,
) -> Exported:  # fmt: skip
    """Write a finished run as files that need no rekindle.

    "onnx" gives model.onnx, with resize, crop, normalisation and softmax inside, and classify.py, which runs it; "timm" gives a folder
    that timm and the Hugging Face Hub read. Each is compared with the run on up to 100 pictures, and refused where it answers otherwise.

    Args:
        run: A run folder.
        formats: Of "onnx" and "timm".
        int8: Also write model.int8.onnx, and measure what it loses on up to 500 pictures.
        data: Labelled pictures to check on, in place of the run's own.
        out: Folder to write to; None takes `export` in the run folder.
        progress: Told what is being done, in words.

    Returns:
        The folder, how near each file's answers are to the run's, and what int8 loses.

    Raises:
        UserError: If the run cannot be exported so, or the file answers otherwise than the run.
    """
    if unknown := [name for name in formats if name not in FORMATS]:
        raise UserError(f"--format must be one of {', '.join(FORMATS)}, found {unknown[0]!r}.")
    if int8 and "onnx" not in formats:
        raise UserError("--int8 quantises the ONNX file; give --format onnx with it.")
    finished = Run(Path(run))
    folder = finished.folder / "export" if out is None else expand(Path(out))
    folder.mkdir(parents=True, exist_ok=True)
    pictures = own_pictures(finished, data)
    progress("asking the run")
    expected = answers_of_run(finished, pictures.checked)
    parity: dict[str, Parity] = {}
    measured = None
    if "onnx" in formats:
        progress("writing ONNX")
        path = folder / "model.onnx"
        write_atomic(path, to_onnx(finished).SerializeToString())
        parity["onnx"] = compare(expected, answers_of_onnx(path, pictures.checked))
        require_parity("ONNX file", parity["onnx"], path.unlink)
        write_atomic(folder / "classify.py", SCRIPT.read_text("utf-8"))
        measured = _int8(folder, pictures, progress) if int8 else None
    if "timm" in formats:
        progress("writing the timm folder")
        parity["timm"] = _timm(finished, folder / "timm", pictures, expected)
    exported = Exported(folder, parity, measured)
    write_json(folder / "export.json", exported.to_dict())
    return exported


def _timm(run: Run, folder: Path, pictures: OwnPictures, expected: Any) -> Parity:
    write_timm_folder(run, folder)
    try:
        parity = compare(expected, answers_of_timm(folder, pictures.checked))
    except UserError:
        shutil.rmtree(folder)
        raise
    require_parity("timm folder", parity, lambda: shutil.rmtree(folder))
    return parity


def _int8(folder: Path, pictures: OwnPictures, progress: Callable[[str], object]) -> dict[str, Any]:
    """Quantise the graph of a folder, and measure both on the labelled pictures."""
    from rekindle.exporting.int8 import quantize

    progress("quantising")
    quantize(folder / "model.onnx", folder / "model.int8.onnx", pictures.calibration)
    progress("measuring the quantised network")
    hits = {
        name: float((answers_of_onnx(folder / file, pictures.pictures).argmax(1) == pictures.labels).double().mean())
        for name, file in (("accuracy", "model.int8.onnx"), ("float_accuracy", "model.onnx"))
    }
    return {"pictures": len(pictures.pictures), **hits, "bytes": (folder / "model.int8.onnx").stat().st_size}
