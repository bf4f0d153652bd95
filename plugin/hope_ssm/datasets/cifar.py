"""CIFAR-10 as pixel sequences, from its binary version: plain records, no pickle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hope_ssm.checks import check_flag
from hope_ssm.datasets.images import pixel_order
from hope_ssm.datasets.randomness import RandomDataset, check_seed

N_CLASSES = 10
SIDE = 32
FOLDER = "cifar-10-batches-bin"
TRAIN_FILES = [f"data_batch_{i}.bin" for i in range(1, 6)]
TEST_FILES = ["test_batch.bin"]
RECORD = 1 + 3 * SIDE * SIDE  # a class, then the red, the green and the blue pixels row by row
PADDING = 4  # of the augmentation
# Mean and standard deviation of the training pixels, the host's figures.
COLOUR = ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261))
GREY = ((122.6 / 255,), (61.0 / 255,))


def folder(data_dir: str | None = None) -> Path:
    """Return where the files lie: in ``data_dir`` or its ``cifar-10-batches-bin``; by default in ``$DATA_PATH/cifar``.

    Raises:
        FileNotFoundError: a file is not there; the message says where to put what.
    """
    root = (Path(data_dir) if data_dir is not None else Path(os.environ.get("DATA_PATH", "data"), "cifar")).absolute()
    place = root if (root / TEST_FILES[0]).is_file() else root / FOLDER
    for name in TRAIN_FILES + TEST_FILES:
        if not (place / name).is_file():
            raise FileNotFoundError(
                f"CIFAR-10's binary version must be in {place}; {name} is not there. Unpack cifar-10-binary.tar.gz in "
                f"{root}, get it with hope data cifar, or name another folder with dataset.data_dir or DATA_PATH."
            )
    return place


def read(files: list[Path]) -> tuple[Tensor, Tensor]:
    """Return the images (N, 3, 1024) uint8 and the classes (N,) int64 of files in CIFAR-10's binary format.

    Raises:
        ValueError: a file is not a whole number of records, or a class is not from 0 to 9.
    """
    records = []
    for file in files:
        content = np.fromfile(file, dtype=np.uint8)
        if not len(content) or len(content) % RECORD:
            raise ValueError(
                f"{file} must hold records of {RECORD} bytes; got {len(content)} bytes. Unpack it anew from "
                "cifar-10-binary.tar.gz."
            )
        records.append(content.reshape(-1, RECORD))
        if records[-1][:, 0].max() >= N_CLASSES:
            raise ValueError(
                f"{file} must hold classes from 0 to {N_CLASSES - 1}; got {records[-1][:, 0].max()}. It is not "
                "CIFAR-10's binary version, or damaged."
            )
    whole = torch.from_numpy(np.concatenate(records))
    return whole[:, 1:].reshape(-1, 3, SIDE * SIDE).contiguous(), whole[:, 0].long()


def luma(images: Tensor) -> Tensor:
    """Y = 0.299 R + 0.587 G + 0.114 B, rounded; (N, 3, P) uint8 to (N, 1, P).  Source: ITU-R BT.601."""
    weights = torch.tensor([19595, 38470, 7471], dtype=torch.int32).unsqueeze(-1)  # in units of 2⁻¹⁶
    parts = [((image.int() * weights).sum(0, keepdim=True) + 2**15) >> 16 for image in images]
    return torch.stack(parts).to(torch.uint8)


class CIFAR10(RandomDataset):
    """Pairs (x (1024, d) float32 of mean 0 and standard deviation 1, class), d = 3, or 1 for grey images.

    Args:
        images: (N, d, 1024) uint8.
        classes: (N,).
        permute: order of the pixels, see ``pixel_order``.
        augment: crop at random after a symmetric padding of 4 pixels, and mirror every second image.
        tokenize: x as grey levels (1024,) int64, for an embedding.
        seed: of the augmentation, see ``RandomDataset``.
        split: of the augmentation, see ``RandomDataset``.
        fixed: of the augmentation, see ``RandomDataset``.
    """

    def __init__(
        self,
        images: Tensor,
        classes: Tensor,
        seed: int,
        split: str,
        fixed: bool | None = None,
        *,
        permute: str | None = None,
        augment: bool = False,
        tokenize: bool = False,
    ) -> None:
        super().__init__(seed, split, fixed)
        self.images, self.classes = images, classes
        self.augment, self.tokenize = check_flag("augment", augment), check_flag("tokenize", tokenize)
        self.order = pixel_order(permute, SIDE, SIDE)
        mean, deviation = COLOUR if images.shape[1] == 3 else GREY
        self.mean, self.deviation = torch.tensor(mean), torch.tensor(deviation)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index]
        if self.augment:
            image = self._augmented(image.view(-1, SIDE, SIDE), self.generator(index)).flatten(1)
        if self.order is not None:
            image = image[:, self.order]
        if self.tokenize:
            return image[0].long(), self.classes[index]
        return (image.T.float() / 255 - self.mean) / self.deviation, self.classes[index]

    @staticmethod
    def _augmented(image: Tensor, generator: np.random.Generator) -> Tensor:
        padded = np.pad(image.numpy(), ((0, 0), (PADDING, PADDING), (PADDING, PADDING)), mode="symmetric")
        top, left = generator.integers(2 * PADDING + 1, size=2)
        crop = padded[:, top : top + SIDE, left : left + SIDE]
        return torch.from_numpy(np.ascontiguousarray(crop[..., ::-1] if generator.random() < 0.5 else crop))


def sequential_cifar(
    seed: int = 42,
    *,
    data_dir: str | None = None,
    grayscale: bool = False,
    permute: str | None = None,
    augment: bool = False,
    tokenize: bool = False,
    val_split: float = 0.1,
) -> dict[str, Dataset]:
    """Return ``{"train", "val", "test"}``: the published test images; of the others, ``val_split`` for validation.

    Args:
        seed: of the validation split and of the augmentation of the training images.
        data_dir: see ``folder``.
        grayscale: see ``CIFAR10``; tokens need grey images.
        permute: see ``CIFAR10``.
        augment: see ``CIFAR10``.
        tokenize: see ``CIFAR10``.
        val_split: share of the training images, above 0 and below 1.

    Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    if check_flag("tokenize", tokenize) and not grayscale:
        raise ValueError("tokenize needs grey images; got grayscale=false. Set dataset.grayscale=true.")
    place = folder(data_dir)
    images, classes = read([place / name for name in TRAIN_FILES])
    test_images, test_classes = read([place / name for name in TEST_FILES])
    if check_flag("grayscale", grayscale):
        images, test_images = luma(images), luma(test_images)
    n_train = int(len(images) * (1.0 - val_split))
    if not 0 < n_train < len(images):
        raise ValueError(f"val_split must leave training and validation images of {len(images)}; got {val_split}.")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(check_seed(seed)))
    train, val = order[:n_train], order[n_train:]
    options: dict[str, Any] = {"permute": permute, "tokenize": tokenize}
    return {
        "train": CIFAR10(images[train], classes[train], seed, "train", augment=augment, **options),
        "val": CIFAR10(images[val], classes[val], seed, "val", **options),
        "test": CIFAR10(test_images, test_classes, seed, "test", **options),
    }
