"""Pathfinder's images as sequences of pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from hope_ssm.checks import check_flag, check_positive_integer
from hope_ssm.datasets.lra.files import Damage, check_there, place
from hope_ssm.datasets.lra.pathfinder_files import LEVEL, imaging
from hope_ssm.datasets.randomness import check_seed


def labelled(folder: Path, damage: Damage) -> list[tuple[Path, int]]:
    """Return (image, label) of the lines of ``folder/metadata/*.npy``: in each, fields 0 and 1 are folder and file of
    the image, field 3 is its label."""
    found = []
    for file in sorted((folder / "metadata").glob("*.npy"), key=lambda path: int(path.stem)):
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            fields = line.split()
            if len(fields) < 4 or fields[3] not in ("0", "1"):
                damage.found.append(f"line {number} of {file}")
                continue
            image = folder / fields[0] / fields[1]
            if not image.is_file() or not image.stat().st_size:
                damage.found.append(str(image))
                continue
            found.append((image, int(fields[3])))
    return found


def read_image(path: Path, resolution: int) -> np.ndarray:
    """Return the pixels (R, R) uint8 of a grey image.

    Raises:
        ValueError: it is no image, or of another size.
    """
    try:
        with imaging().open(path) as file:
            pixels = np.asarray(file.convert("L"))
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} must be an image; it is damaged. Make or get it anew.") from error
    if pixels.shape != (resolution, resolution):
        raise ValueError(f"{path} must have {resolution} x {resolution} pixels; it has {pixels.shape}.")
    return pixels


class PathfinderImages(Dataset):
    """Pairs (x (L, 1) float32, label), x the grey levels from 0 to 1 row by row; L = (R // pool)².

    Args:
        images: (file, label) of each.
        resolution: R.
        pool: side of the squares of pixels that are averaged; divides R.
        center: grey levels from -1 to 1.
        tokenize: x as grey levels (L,) int64 from 0 to 255, for an embedding.
        keep: every image is decoded at once and kept, R² bytes each; otherwise whenever it is asked for.
    """

    def __init__(
        self,
        images: list[tuple[Path, int]],
        resolution: int,
        pool: int = 1,
        center: bool = False,
        tokenize: bool = False,
        keep: bool = False,
    ) -> None:
        self.images, self.resolution = images, resolution
        self.pool = check_positive_integer("pool", pool)
        if resolution % pool:
            raise ValueError(f"pool must divide the resolution, {resolution}; got {pool}.")
        self.center, self.tokenize = check_flag("center", center), check_flag("tokenize", tokenize)
        keep = check_flag("keep", keep)
        self.kept = np.stack([read_image(path, resolution) for path, _ in images]) if keep else None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.images[index]
        side = self.resolution // self.pool
        pixels = read_image(path, self.resolution) if self.kept is None else self.kept[index]
        squares = pixels.astype(np.float32).reshape(side, self.pool, side, self.pool)
        x = torch.from_numpy(squares.mean((1, 3)).reshape(-1))
        if self.tokenize:
            return x.long(), label
        x = x / 255
        return (2 * x - 1 if self.center else x).unsqueeze(-1), label


def pathfinder(
    resolution: int = 32,
    data_dir: str | None = None,
    *,
    seed: int = 42,
    pool: int = 1,
    center: bool = False,
    tokenize: bool = False,
    val_split: float = 0.1,
    test_split: float = 0.1,
    keep: bool = False,
) -> dict[str, Dataset]:
    """Return ``{"train", "val", "test"}``, the same images as in the host.

    Args:
        resolution: of the images: 16, 32, 64, 128 or 256.
        data_dir: folder of ``curv_contour_length_14``; by default ``$DATA_PATH/pathfinder/pathfinderR``.
        seed: of the split.
        pool: see ``PathfinderImages``.
        center: see ``PathfinderImages``.
        tokenize: see ``PathfinderImages``.
        val_split: share of all images, above 0; together with ``test_split`` below 1.
        test_split: share of all images, above 0.
        keep: see ``PathfinderImages``.

    Raises:
        FileNotFoundError: the files are not there, or incomplete.
        ValueError: more than 1 in 1000 images are absent or empty; fewer are left out. With ``keep``, an image is
            damaged; otherwise that is said when it is asked for.
    """
    folder, damage = (
        place(data_dir, "pathfinder", f"pathfinder{check_positive_integer('resolution', resolution)}"),
        Damage("Pathfinder"),
    )
    mend = f"hope data pathfinder -r {resolution} --out {folder.parent.parent}"
    check_there(folder / LEVEL, ["imgs", "metadata"], mend)
    images = labelled(folder / LEVEL, damage)
    damage.fine = len(images)
    damage.check()
    n_val, n_test = int(val_split * len(images)), int(test_split * len(images))
    if min(n_val, n_test) < 1 or n_val + n_test >= len(images):
        raise ValueError(
            f"val_split and test_split must leave no split of {len(images)} images empty; got {val_split} and "
            f"{test_split}."
        )
    whole = PathfinderImages(images, resolution, pool, center, tokenize, keep)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(check_seed(seed))).tolist()
    n_train = len(images) - n_val - n_test
    parts = {"train": order[:n_train], "val": order[n_train : n_train + n_val], "test": order[n_train + n_val :]}
    return {name: Subset(whole, part) for name, part in parts.items()}
