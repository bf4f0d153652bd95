"""``hope data``: make the data sets of the Long-Range Arena, and check what is there."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hope_ssm.checks import check_positive_integer
from hope_ssm.datasets.lra import checking, fetching, listops, pathfinder_files, small
from hope_ssm.datasets.lra.making import available_processes
from hope_ssm.datasets.lra.pathfinder import CONTOUR_LENGTHS, SETTINGS

FETCHED = {
    "text": "IMDB, film reviews, fetched",
    "retrieval": "AAN, pairs of papers, from the Long-Range Arena's archive",
    "cifar": "CIFAR-10, its binary version, fetched",
}
RESOLUTIONS = {"pathfinder": 32, "pathx": 128}  # pixels of a side, unless -r says otherwise
EPILOG = """files, size on the disk and time (of one processor, for all samples):
  listops                 DATA/listops                      0.7 GB   1.5 min
  listops --small         DATA/small/listops-20000-0        6 MB     5 s
  pathfinder --small      DATA/small/pathfinder16-12000-0   50 MB    2 min
  pathfinder -r 16        DATA/pathfinder/pathfinder16      0.8 GB   0.5 h
  pathfinder [-r 32]      DATA/pathfinder/pathfinder32      0.8 GB   0.6 h
  pathfinder -r 64        DATA/pathfinder/pathfinder64      0.8 GB   2 h
  pathx                   DATA/pathfinder/pathfinder128     0.8 GB   1.5 h
  pathfinder -r 256       DATA/pathfinder/pathfinder256     1 GB     1.5 h
  text                    DATA/imdb                         0.4 GB   (80 MB fetched)
  retrieval               DATA/aan                          4 GB     (8 GB fetched)
  cifar                   DATA/cifar                        0.4 GB   (160 MB fetched)

The layout is that of state-spaces/s4: set DATA_PATH=DATA for it and for hope train. Stopped, the same command goes on
where it was; the same seed and size give the same files, with any number of processes.
"""


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar where rich is installed; yields the function that hears how many more there are."""
    try:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        yield lambda more: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task(what, total=total)
        yield lambda more: bar.advance(task, more)


def _made(what: str, size: int, folder: Path, make: Callable[[Callable[[int], None]], bool]) -> None:
    """Run ``make`` under a bar, and print how fast it was."""
    start, counts = time.perf_counter(), []
    with progress(what, size) as advance:

        def hear(more: int) -> None:
            counts.append(more)
            advance(more)

        new = make(hear)
    seconds = time.perf_counter() - start
    if not new:
        print(f"{folder} is there already; hope data check says what it holds.")
        return
    made = sum(counts[1:])  # the first is what an earlier run had made
    print(f"{folder}: {size} {what}, {made} of them made now in {seconds:.0f} s, {made / seconds:.0f} per second.")


def _small(options: argparse.Namespace) -> None:
    """Make a small version, as the data sets ``listops-small`` and ``pathfinder-small`` do at first use."""
    root, seed = options.out.absolute(), options.seed
    if options.kind == "listops":
        size = small.LISTOPS_SIZE if options.size is None else options.size
        what, folder, make = "samples", small.listops_folder(root, seed, size), small.make_listops
    else:
        if options.level != pathfinder_files.LEVEL:
            raise ValueError(f"--small must have the level {pathfinder_files.LEVEL}; got {options.level}.")
        size = small.PATHFINDER_SIZE if options.size is None else options.size
        what, folder, make = "images", small.pathfinder_folder(root, seed, size), small.make_pathfinder
    _made(what, size, folder, lambda advance: make(root, seed, size, options.processes, advance))


def _listops(options: argparse.Namespace) -> None:
    if options.small:
        return _small(options)
    folder = options.out / "listops"
    size = listops.SIZE if options.size is None else options.size
    what = {"seed": options.seed, "size": size, "processes": options.processes}
    _made("samples", size, folder, lambda advance: listops.make(folder, **what, advance=advance))


def _pathfinder(options: argparse.Namespace) -> None:
    if options.small:
        return _small(options)
    resolution = options.resolution or RESOLUTIONS[options.kind]
    folder = options.out / "pathfinder" / f"pathfinder{resolution}"
    size = pathfinder_files.SIZE if options.size is None else options.size
    what = {"seed": options.seed, "size": size, "processes": options.processes, "level": options.level}
    _made(
        "images",
        size,
        folder / options.level,
        lambda advance: pathfinder_files.make(folder, resolution, **what, advance=advance),
    )


def _fetch(options: argparse.Namespace) -> None:
    with progress("bytes", None) as advance:
        new = fetching.fetch(options.kind, options.out, options.archive, print, advance)
    folder = options.out / fetching.SOURCES[options.kind].folder
    print(f"{folder}: made." if new else f"{folder} is there already; hope data check says what it holds.")


def _check(options: argparse.Namespace) -> int:
    return 0 if checking.check(options.data, lambda line: print(line, flush=True)) else 1


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    description = "Make the data sets of the Long-Range Arena, and check what is there."
    parser = argparse.ArgumentParser(prog="hope data", description=description, epilog=EPILOG, formatter_class=raw)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    for name, run, summary in (
        ("listops", _listops, "nested lists to evaluate, drawn by the published rules"),
        ("pathfinder", _pathfinder, "dashed paths, drawn by the published parameters"),
        ("pathx", _pathfinder, "the same at 128 x 128"),
    ):
        kind = kinds.add_parser(name, help=summary, description=f"Make {name}: {summary}.")
        _common(kind)
        kind.add_argument("--seed", type=int, default=0, help="seed of all random numbers (default: 0)")
        kind.add_argument("--size", type=int, help="number of samples (default: as many as published)")
        processes = available_processes()
        kind.add_argument("--processes", type=int, default=processes, help=f"at a time (default: {processes})")
        kind.set_defaults(run=run, resolution=None, small=False)  # argparse takes a given default for none given
        if run is _pathfinder:
            default = pathfinder_files.LEVEL
            kind.add_argument(
                "--level", choices=CONTOUR_LENGTHS, default=default, help=f"(default: {default}, as read)"
            )
        if name == "pathx":
            continue
        which = kind.add_mutually_exclusive_group()
        if name == "pathfinder":
            default = f"(default: {RESOLUTIONS[name]})"
            which.add_argument("-r", "--resolution", type=int, choices=SETTINGS, help=default)
        which.add_argument("--small", action="store_true", help=f"the data set {name}-small, for a CPU")
    for name, summary in FETCHED.items():
        kind = kinds.add_parser(name, help=summary, description=f"Fetch {name}: {summary}.")
        _common(kind)
        source = fetching.SOURCES[name].url
        kind.add_argument("--archive", type=Path, metavar="FILE", help=f"a copy of {source} (default: fetch it)")
        kind.set_defaults(run=_fetch)
    kind = kinds.add_parser("check", help="read all that is there, and say what it is", description="Read all data.")
    kind.add_argument("data", type=Path, nargs="?", default=_default(), metavar="DATA", help="(default: $DATA_PATH)")
    kind.set_defaults(run=_check)
    return parser


def _default() -> Path:
    return Path(os.environ.get("DATA_PATH", "data"))


def _common(kind: argparse.ArgumentParser) -> None:
    kind.add_argument("--out", type=Path, default=_default(), metavar="DATA", help="(default: $DATA_PATH, else data)")


def run(arguments: list[str]) -> int:
    """Run one subcommand."""
    options = _parser().parse_args(arguments)
    if hasattr(options, "processes"):
        check_positive_integer("--processes", options.processes)
    return options.run(options) or 0
