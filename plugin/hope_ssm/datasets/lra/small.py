"""ListOps of up to 128 symbols and Pathfinder of 16 x 16 pixels: drawn once, below ``$DATA_PATH/small``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hope_ssm.datasets.lra import listops, making, pathfinder_files

LISTOPS_SIZE = 20_000
PATHFINDER_SIZE = 12_000
RESOLUTION = 16


def listops_folder(root: Path, seed: int = 0, size: int = LISTOPS_SIZE) -> Path:
    """Return where the samples are, with ``root`` the folder of all data."""
    return root / "small" / f"listops-{size}-{seed}"


def pathfinder_folder(root: Path, seed: int = 0, size: int = PATHFINDER_SIZE) -> Path:
    """Return where the folder ``curv_contour_length_14`` of the images is, with ``root`` the folder of all data."""
    return root / "small" / f"pathfinder{RESOLUTION}-{size}-{seed}"


def make_listops(
    root: Path,
    seed: int = 0,
    size: int = LISTOPS_SIZE,
    processes: int = 1,
    advance: Callable[[int], None] = lambda samples: None,
) -> bool:
    """Make the samples unless they are there; return whether they were not. Arguments: see ``listops.make``."""
    folder = listops_folder(root, seed, size)
    return listops.make(folder, seed, size, processes, advance, listops.SHORT)


def make_pathfinder(
    root: Path,
    seed: int = 0,
    size: int = PATHFINDER_SIZE,
    processes: int | None = None,
    advance: Callable[[int], None] = lambda images: None,
) -> bool:
    """Make the images unless they are there; return whether they were not. Arguments: see ``pathfinder_files.make``."""
    folder = pathfinder_folder(root, seed, size)
    processes = making.available_processes() if processes is None else processes
    return pathfinder_files.make(folder, RESOLUTION, seed, size, processes, advance=advance)
