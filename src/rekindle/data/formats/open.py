"""What a user names as data, opened by one function: a folder, a table, a folder of tables, a Hugging Face dataset."""

from dataclasses import replace
from pathlib import Path

from rekindle.data.dataset import Dataset, name_in
from rekindle.data.exclusion import read_exclusion
from rekindle.data.formats import folders, huggingface, tables
from rekindle.data.formats.columns import ColumnNames
from rekindle.data.formats.names import is_table
from rekindle.data.grouping import groups_by_name
from rekindle.data.splits import FoundData, SplitRules
from rekindle.data.tasks import load
from rekindle.errors import UserError, agree, number_of, some


def open_data(
    data: Path | str,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
    group_pattern: str | None = None,
    seed: int = 0,
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
    per_class: int | None = None,
    fraction: float | None = None,
    defaults: str = "0.2",
    exclude: str | None = None,
    fold: str | None = None,
) -> Dataset:
    """Find classes, pictures and splits.

    Data that have splits are used as they are split, and a missing validation split is taken from train. Data without any are
    split into test, validation and training per class; their test split is the same for every seed.

    Args:
        data: See `survey`.
        image_column: Column of a table with paths or bytes of pictures; None finds it.
        label_column: Column with text or integers; None finds it.
        split_column: Column with words such as train, validation and test; None finds it where there is one.
        group_column: Column with what belongs together, such as patients; no group stands in two of the splits that are made. None takes each picture alone.
        group_pattern: The same by pictures' names: a regular expression whose brackets, or all of which, match the group's.
        seed: Key of validation splits and subsets.
        val_fraction: Share of each class's training images held out for validation where the data has no validation split, 0 <= x < 1; 0 takes out none.
        test_fraction: Share of each class held out for the test where the data has no splits at all; 0 < x < 1.
        per_class: Exactly this many training images a class, those of validation beside them; None takes all.
        fraction: This share of each class's training images instead, 0 < x <= 1; None takes all.
        defaults: Whose rules divide the data: "0.2", or "0.1" for the splits that rekindle 0.1.0 made.
        exclude: CSV file that names pictures, in its column `path`, which neither train nor validate; those of the test split stay there.
        fold: Such as "2/5": divide training and validation pictures into five folds, and validate on the second; None makes no folds.

    Returns:
        Classes, the pictures of each split, and notes on what was left out; no picture is opened.

    Raises:
        UserError: Listing everything that is wrong, by path or row.
    """
    rules = SplitRules(Path(data), seed, val_fraction, test_fraction, per_class, fraction, defaults, fold=fold)
    asked = ColumnNames(image_column or "", label_column or "", split_column or "", group_column or "")
    found = survey(data, asked, group_pattern)
    everything = (picture for part in found.found.values() for pictures in part.values() for picture in pictures)
    exclusion = read_exclusion(exclude, found.root, everything)
    return found.split(replace(rules, root=found.root, exclusion=exclusion))


def survey(data: Path | str, asked: ColumnNames, group_pattern: str | None = None) -> FoundData:
    """Classes and pictures, and everything wrong with names, places and rows; no picture is opened.

    Args:
        data: A folder of class folders, or of train (val, test) folders of them; a CSV, TSV or Parquet file, or a folder with
            train (val, test) files of one of these kinds; a folder that `datasets` saved, or hf:NAME; a prepared benchmark task, by
            name or folder.
        asked: Names of a table's columns.
        group_pattern: See `open_data`.

    Returns:
        What was found, before it is divided into splits.

    Raises:
        UserError: If there is nothing to look at.
    """
    try:
        found = _survey(data, asked)
        return found if group_pattern is None else _grouped(found, group_pattern)
    except PermissionError as error:
        raise UserError(f"{error.filename} cannot be opened; allow reading it, or copy the pictures to a folder of your own.") from None


def _grouped(found: FoundData, pattern: str) -> FoundData:
    """The same with groups by pictures' names; that names hold none is a problem."""
    names = {picture: name_in(found.root, picture) for part in found.found.values() for pictures in part.values() for picture in pictures}
    groups, without = groups_by_name(names, pattern)
    if without:
        found.findings.problems.append(
            f"{len(without)} of {number_of(len(names), 'name')} {agree(len(without), 'holds')} no group by --group-pattern {pattern!r}: {some(without, 3)}; widen the pattern"
        )
    return replace(found, groups=groups, choices={**found.choices, "group_pattern": pattern})


def _survey(data: Path | str, asked: ColumnNames) -> FoundData:
    path = Path(data)
    if load.is_task(data):
        if asked.group:
            raise UserError(f"{data} is a prepared task without columns, so --group-column has no meaning; leave it out.")
        return load.survey(data)
    if str(data).startswith(huggingface.PREFIX) or (path.is_dir() and huggingface.is_saved(path)):
        return huggingface.survey(str(data), asked)
    if path.is_file() and is_table(path) or _holds_tables(path):
        return tables.survey(path, asked)
    given = [f"--{name}-column" for name, column in vars(asked).items() if column]
    if given and path.exists():
        raise UserError(
            f"{path} is no table, so {', '.join(given)} has no meaning; leave it out, or name a .csv, .tsv, .jsonl or .parquet file."
        )
    return folders.survey(path)


def _holds_tables(path: Path) -> bool:
    """A folder with a train table and no train folder."""
    return path.is_dir() and not (path / "train").is_dir() and bool(tables.tables_in(path))
