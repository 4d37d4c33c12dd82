"""The command group `rekindle data`: one small function registers each subcommand, another acts."""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rekindle.cli.clean import add_clean
from rekindle.cli.output import add_columns, add_command, add_json, asked_columns, table
from rekindle.errors import number_of
from rekindle.spec import RunSpec
from rekindle.training.progress import ProgressBar

if TYPE_CHECKING:
    from rekindle.data.check import Check

OK, REFUSED = 0, 1
CLASSES_SHOWN = 60


def register(commands: Any) -> None:
    """Add `data` and its subcommands to the command."""
    group = add_command(commands, "data", "check, clean, prepare and list data", "rekindle data prepare flowers102")
    parts = group.add_subparsers(title="data commands", required=True, metavar="COMMAND")
    for add in SUBCOMMANDS:
        add(parts)


def _add_list(parts: Any) -> None:
    command = add_command(parts, "list", "list the benchmark tasks", "rekindle data list")
    _root(command)
    add_json(command)
    command.set_defaults(act=_list)


def _list(options: argparse.Namespace) -> int:
    from rekindle.data.tasks import TASKS
    from rekindle.data.tasks.prepared import is_prepared, place

    found: list[dict[str, Any]] = [
        {"name": name, "title": task.title, "classes": task.classes, "counts": task.counts,
         "prepared": is_prepared(place(name, options.root))}
        for name, task in TASKS.items()
    ]  # fmt: skip
    if options.json:
        print(json.dumps(found))
        return OK
    rows = [
        [str(one["name"]), str(one["classes"]), *(str(one["counts"].get(split, "")) for split in ("train", "val", "test")),
         "yes" if one["prepared"] else "no", str(one["title"])]
        for one in found
    ]  # fmt: skip
    table(["task", "classes", "train", "val", "test", "prepared", "title"], rows, words={"title"})
    return OK


def _add_info(parts: Any) -> None:
    command = add_command(parts, "info", "tell a benchmark task's counts, splits, sources and licence", "rekindle data info flowers102")
    command.add_argument("name", help="a task; see rekindle data list")
    _root(command)
    add_json(command)
    command.set_defaults(act=_info)


def _info(options: argparse.Namespace) -> int:
    from rekindle.data.tasks import find
    from rekindle.data.tasks.prepared import counted, is_prepared, place, record

    task, folder = find(options.name), place(options.name, options.root)
    prepared = is_prepared(folder)
    found: dict[str, Any] = {
        "name": task.name, "title": task.title, "paper": task.paper, "page": task.page, "licence": task.licence, "classes": task.classes,
        "counts": task.counts, "split": task.split, "prepared": prepared, "folder": str(folder),
        "sources": record(folder)["sources"] if prepared
        else [{"file": source.file, "hash": source.hash, "urls": list(source.urls)} for source in task.sources],
    }  # fmt: skip
    if options.json:
        print(json.dumps(found))
        return OK
    print(f"{task.name}: {task.title}\npaper: {task.paper}\npage: {task.page}\nlicence: {task.licence}")
    print(f"classes: {task.classes}\npictures: {counted(task.counts)}\nsplit: {task.split}")
    for source in task.sources:
        print(f"file: {source.file} ({source.hash.replace(':', ' ') or 'no published hash: the first one seen is recorded'})")
        print("\n".join(f"    {url}" for url in source.urls))
    if prepared:
        for one in found["sources"]:
            print(f"prepared from: {one['from']} (sha256 {one['sha256']}, {number_of(one['bytes'], 'byte')})")
    print(f"prepared: {folder}" if prepared else f"not prepared; type: rekindle data prepare {task.name}")
    return OK


def _add_prepare(parts: Any) -> None:
    example = "rekindle data prepare flowers102;  rekindle data prepare stanford_cars --from ~/Downloads"
    command = add_command(parts, "prepare", "download a benchmark task, or import its archives", example)
    command.add_argument("name", help="a task; see rekindle data list")
    command.add_argument(
        "--from", dest="given", nargs="+", default=[], metavar="ARCHIVE", help="files that are here already, or folders that hold them"
    )
    command.add_argument(
        "--repacked", action="store_true",
        help="the archives hold the whole task packed anew: hashes are not compared, the official lists and counts still are",
    )  # fmt: skip
    _root(command)
    add_json(command)
    command.set_defaults(act=_prepare)


def _prepare(options: argparse.Namespace) -> int:
    from rekindle.data.tasks.prepare import prepare
    from rekindle.data.tasks.prepared import counted, is_prepared, place, record

    before = is_prepared(place(options.name, options.root))
    with ProgressBar() as bar:
        folder = prepare(options.name, options.given, root=options.root, repacked=options.repacked, listener=bar)
    found = record(folder)
    if options.json:
        print(json.dumps({"name": found["name"], "folder": str(folder), "counts": found["counts"], "sources": found["sources"]}))
        return OK
    state = "was prepared before" if before else "is prepared"
    print(f"{found['name']} {state}: {number_of(len(found['classes']), 'class')}, {counted(found['counts'])} pictures in {folder}")
    if not before:
        for size, path in ((one["bytes"], one["from"]) for one in found["sources"] if "://" in one["from"]):
            print(f"kept: {folder.parents[1] / 'downloads' / path.rsplit('/', 1)[1]} ({size / 2**20:.0f} MiB); remove it to save room.")
    print(f"train on it: rekindle fit {found['name']}")
    return OK


def _add_verify(parts: Any) -> None:
    command = add_command(
        parts,
        "verify",
        "check a prepared task's counts, and each picture's hash against what was recorded",
        "rekindle data verify flowers102",
    )
    command.add_argument("name", help="a prepared task; see rekindle data list")
    _root(command)
    add_json(command)
    command.set_defaults(act=_verify)


def _verify(options: argparse.Namespace) -> int:
    from rekindle.data.tasks.verify import verify

    with ProgressBar() as bar:
        found = verify(options.name, root=options.root, listener=bar)
    if options.json:
        print(json.dumps(found))
        return OK
    print(
        f"{found['name']}: all of {number_of(found['pictures'], 'picture')} in {found['folder']} are as prepared, and the counts are official."
    )
    return OK


def _add_cache(parts: Any) -> None:
    example = "rekindle data cache;  rekindle data cache --clear;  rekindle data cache --clear 1f0c22a0b3d4"
    command = add_command(parts, "cache", "show or clear the decoded pictures that runs share", example)
    command.add_argument(
        "--clear", nargs="?", const="", metavar="SETTINGS", help="remove everything, or what was decoded with one of the listed settings"
    )
    _root(command)
    add_json(command)
    command.set_defaults(act=_cache)


def _cache(options: argparse.Namespace) -> int:
    from rekindle.data.cache.cache import GB, Cache

    cache = Cache.default(options.root)
    if options.clear is not None:
        freed, left = cache.clear(options.clear or None)
        stays = f"; {left / GB:.2f} GB stay: running processes use them, or they may not be removed" if left else ""
        print(json.dumps({"removed": freed, "left": left}) if options.json else f"removed {freed / GB:.2f} GB from {cache.root}{stays}.")
        return OK
    found = cache.listing()
    if options.json:
        print(
            json.dumps(
                {"folder": str(cache.root), "limit": int(cache.limit), "bytes": sum(one["bytes"] for one in found), "settings": found}
            )
        )
        return OK
    if found:
        _print_cache(found)
    total = sum(one["bytes"] for one in found)
    print(
        f"{total / GB:.2f} of at most {cache.limit / GB:g} GB (REKINDLE_CACHE_GB) in {cache.root}; empty it with rekindle data cache --clear"
    )
    return OK


def _print_cache(listed: list[dict[str, Any]]) -> None:
    from datetime import datetime

    rows = []
    for one in listed:
        edge = f"{one['edge']} px, {one['interpolation']}, Pillow {one['pillow']}" if "edge" in one else "unknown"
        for shard in one["shards"]:
            used = "now" if shard["in_use"] else datetime.fromtimestamp(shard["last_use"]).isoformat(" ", "minutes")
            rows.append([one["settings"], edge, shard["name"], f"{shard['bytes'] / 1e6:,.1f}", used])
    table(["settings", "shorter edge", "file", "MB", "last used"], rows, names={"shorter edge", "file"})


def _add_check(parts: Any) -> None:
    text = "look at every picture before training: counts, sizes, broken files, repeated pictures"
    example = "rekindle data check photos/ --html check.html;  rekindle data check labels.csv --label-column kind"
    more = "The exit status is 0 if a run would start and 1 if it would be refused."
    command = add_command(parts, "check", text, example, more)
    command.add_argument("data", help="what rekindle fit takes: a folder, a table, a Hugging Face dataset")
    add_columns(command)
    for name, metavar in (("group-column", "NAME"), ("group-pattern", "TEXT")):
        command.add_argument(
            f"--{name}", default="none", metavar=metavar, help="as for fit, to see whether splits tear groups (default: none)"
        )
    command.add_argument("--html", metavar="FILE", help="write a page with sample pictures too, which opens offline")
    add_json(command)
    command.set_defaults(act=_check)


def _check(options: argparse.Namespace) -> int:
    from rekindle.data.check import check
    from rekindle.data.formats.columns import ColumnNames

    spec = RunSpec(options.data, group_column=options.group_column, group_pattern=options.group_pattern)
    with ProgressBar() as bar:
        checked = check(
            options.data, replace(ColumnNames(*asked_columns(options)), group=spec.group_column or ""),
            progress=lambda done, total: bar.progress("checking pictures", done, total), group_pattern=spec.group_pattern,
        )  # fmt: skip
    if options.html:
        from pathlib import Path

        from rekindle.report.data_page import write_data_page

        write_data_page(Path(options.html), checked)
    if options.json:
        print(json.dumps(checked.to_dict()))
    else:
        _print_check(checked)
        if options.html:
            print(f"page: {options.html}")
    return OK if checked.usable else REFUSED


def _print_check(checked: "Check") -> None:

    splits = list(checked.counts)
    rows = [[name, *(str(checked.counts[split][name]) for split in splits)] for name in checked.classes[:CLASSES_SHOWN]]
    if len(checked.classes) > CLASSES_SHOWN:
        rows.append([f"and {len(checked.classes) - CLASSES_SHOWN} more", *[""] * len(splits)])
    table(["class", *splits], [*rows, ["all", *(str(sum(checked.counts[split].values())) for split in splits)]])
    if checked.taken:
        print(f"A run takes {' and '.join(checked.taken)} out of train.")
    print()
    if checked.sizes:
        table(
            ["pixels", "smallest", "median", "largest"],
            [[name, str(low), f"{middle:g}", str(high)] for name, (low, middle, high) in checked.sizes.items()],
        )
    print(
        f"formats: {_counted(checked.formats)}; modes: {_counted(checked.modes)}; turned by EXIF: {checked.rotated}; animations: {checked.animated}"
    )
    repeated = [f"{len(groups)} {what}" for groups, what in (
        (checked.across, "in several splits"), (checked.within, "inside one split"), (checked.contradictions, "with several labels"), (checked.alike, "with the same pixels in other bytes"),
    ) if groups]  # fmt: skip
    print(f"repeated pictures: {', '.join(repeated) or 'none'}")
    # Every broken file is named, however many there are: this is the list to mend by.
    for title, lines in (("worth a look", checked.suspicious), ("notes", checked.notes), ("problems", checked.problems),
                         ("cannot be read", [f"{name}: {reason}" for name, reason in checked.unreadable.items()])):  # fmt: skip
        if lines:
            print("\n".join([f"\n{title}:", *(f"  {line}" for line in lines)]))
    wrong = len(checked.problems) + len(checked.unreadable)
    print(f"\n{checked.data}: " + ("ready to train on." if checked.usable else f"{wrong} to mend before a run can start."))


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def _root(command: argparse.ArgumentParser) -> None:
    command.add_argument("--root", metavar="FOLDER", help="where data is kept (default: $REKINDLE_HOME, or ~/.cache/rekindle)")


SUBCOMMANDS: tuple[Callable[[Any], None], ...] = (_add_list, _add_info, _add_prepare, _add_verify, _add_cache, _add_check, add_clean)
