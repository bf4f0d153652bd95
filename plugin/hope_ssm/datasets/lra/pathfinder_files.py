"""Pathfinder's files: ``curv_contour_length_14/{imgs/K/sample_I.png, metadata/K.npy}``, K a part of the images."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hope_ssm.checks import check_choice, check_positive_integer
from hope_ssm.datasets.lra.making import (
    PARTIAL,
    check_space,
    claim,
    explained,
    finish,
    make_parts,
    one_at_a_time,
    part_generator,
    whole_file,
)
from hope_ssm.datasets.lra.pathfinder import CONTOUR_LENGTHS, Setting, picture, scene, setting_of
from hope_ssm.datasets.randomness import check_seed
from hope_ssm.extras import absent

SIZE = 200_000
PART = 500  # images
LEVEL = "curv_contour_length_14"  # the one that is read


def imaging() -> Any:
    """Return Pillow's ``Image``."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(absent("Pathfinder's images need", "PIL")) from error
    return Image


def part_scenes(
    seed: int, part: int, size: int, setting: Setting, contour_length: int
) -> list[tuple[np.ndarray, int, int]]:
    """Return (image, label, number of short paths) of the images of one part, half of each label."""
    generator = part_generator(seed, setting.resolution * 100 + contour_length, part)
    labels = generator.permutation(np.arange(size) % 2)
    scenes = [scene(generator, setting, int(label), contour_length) for label in labels]
    return [(picture(found, setting), found.label, len(found.paths) - 2) for found in scenes]


def _write_part(folder: Path, seed: int, part: int, size: int, resolution: int, contour_length: int) -> int:
    image, setting = imaging(), setting_of(resolution)
    place = folder / "imgs" / str(part)
    partial = folder / "imgs" / f".{part}.{os.getpid()}{PARTIAL}"
    shutil.rmtree(place, ignore_errors=True)  # of a run that was killed before the list of these was written
    partial.mkdir()
    lines = []
    try:
        for i, (pixels, label, n_short) in enumerate(part_scenes(seed, part, size, setting, contour_length)):
            image.fromarray(pixels).save(partial / f"sample_{i}.png")
            settings = (setting.continuity, contour_length, contour_length // 3, n_short, setting.dash_length)
            rest = (*settings, setting.thickness, setting.margins[0], 1)
            lines.append(" ".join(map(str, (f"imgs/{part}", f"sample_{i}.png", i, label, *rest))) + "\n")
        partial.replace(place)
    except OSError as error:
        raise explained(error, folder) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    with whole_file(folder / "metadata" / f"{part}.npy") as file:
        file.write("".join(lines).encode())
    return size


@one_at_a_time
def make(
    folder: Path,
    resolution: int = 32,
    seed: int = 0,
    size: int = SIZE,
    processes: int = 1,
    level: str = LEVEL,
    advance: Callable[[int], None] = lambda images: None,
) -> bool:
    """Make ``folder/level``: images, and their labels in text files; return whether there was anything to do.

    Every 500 images have random numbers of their own, so the bytes depend on resolution, seed, size and level alone.
    A stopped call continues where it was.

    Args:
        folder: such as the host's ``pathfinder32``.
        resolution: 16, 32, 64, 128 or 256.
        seed: from 0 to 2⁶³ - 1.
        size: images; half of them, in every 500, have label 1.
        processes: how many at a time.
        level: ``curv_baseline``, ``curv_contour_length_9`` or ``curv_contour_length_14``.
        advance: hears how many more images there are.
    """
    imaging()
    setting_of(resolution)
    check_positive_integer("size", size)
    check_seed(seed)
    contour_length = CONTOUR_LENGTHS[check_choice("level", level, CONTOUR_LENGTHS)]
    place = folder / level
    recipe = {"data": "pathfinder", "resolution": resolution, "level": level, "seed": seed, "size": size, "version": 1}
    whole = claim(place, recipe)
    for name in ("imgs", "metadata"):
        (place / name).mkdir(exist_ok=True)
    parts = range(-(-size // PART))
    tasks = [(place, seed, part, min(PART, size - part * PART), resolution, contour_length) for part in parts]
    todo = [task for task in tasks if not (place / "metadata" / f"{task[2]}.npy").is_file()]
    if whole and not todo:
        return False
    left = sum(task[3] for task in todo)
    check_space(place, left * max(4096, resolution**2 // 4))
    advance(size - left)
    make_parts(_write_part, todo, processes, advance)
    finish(place, recipe)
    return True
