"""`rekindle.fit`: fine-tune a network on labelled images."""

from pathlib import Path
from typing import Any

from rekindle.errors import UserError
from rekindle.fitting.freeze_search import search_freeze
from rekindle.fitting.job import execute
from rekindle.run import Run, read_spec
from rekindle.spec import RunSpec
from rekindle.training.listener import Listener, Silent

AUTO = "auto"


def fit(
    data: str | Path | None = None, *, out: str | Path = "runs", resume: str | Path | None = None, listener: Listener | None = None,
    cache: bool = True, workers: int | None = None, **options: Any,
) -> "Run":  # fmt: skip
    """Fine-tune a network on a folder of photographs and return the finished run.

    Args:
        data: A folder, a table, a Hugging Face dataset or a prepared task; see `rekindle.data.open_data`.
        out: Folder in which the run's own folder is made.
        resume: A run folder to continue instead; all settings come from its spec.yaml.
        listener: Told of progress; see `rekindle.training.listener.Listener`.
        cache: Keep decoded pictures for later runs; see `rekindle.data.cache.cache`. No result depends on it.
        workers: Threads that prepare the next batches meanwhile; None chooses. No result depends on it.
        **options: Fields of `RunSpec`.

    Returns:
        The run; one that was finished before is returned as it is.

    Raises:
        UserError: For bad input, in one sentence.

    Example:
        >>> run = rekindle.fit("photos/", method="l2_sp+rifle(periods=2)")  # doctest: +SKIP
        >>> run.predict(["new.jpg"])  # doctest: +SKIP
    """
    if resume is not None:
        if data is not None or options:
            raise UserError("--resume takes every setting from the run's spec.yaml; leave the others out.")
        folder = Path(resume)
        spec, out = read_spec(folder), folder.parent
    elif data is None:
        raise UserError("name the folder with photographs, or a table of them: rekindle fit photos/")
    else:
        folder = None
        spec = RunSpec(data=str(data), **options)
    if spec.freeze_until == AUTO:
        return search_freeze(spec, out=out, listener=listener, cache=cache, workers=workers).run
    return execute(spec, out=Path(out), resumed=folder, listener=listener or Silent(), cache=cache, workers=workers)
