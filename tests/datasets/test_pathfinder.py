"""Pathfinder: scenes against the rules by other geometry, pictures pixel by pixel, files and their order."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from files import contents
from hope_ssm.datasets.lra import making, pathfinder_files, pathfinder_images
from hope_ssm.datasets.lra.pathfinder import ANTIALIASING, SETTINGS, Scene, picture, scene, setting_of, turn

FOLDER = "curv_contour_length_14"


def distance(one, other):
    """Between two segments, from 60 points on each."""
    t = np.linspace(0, 1, 60)[:, None]
    a, b = (begin + t * (end - begin) for begin, end in (one, other))
    return np.sqrt(((a[:, None] - b) ** 2).sum(-1)).min()


@pytest.mark.slow
@pytest.mark.parametrize("resolution", SETTINGS)
@pytest.mark.parametrize("label", [0, 1])
def test_scenes_keep_the_rules(resolution, label):
    setting = SETTINGS[resolution]
    for seed in range(3):
        found = scene(np.random.default_rng(seed), setting, label)
        length = 6 if resolution == 16 else 14
        assert found.label == label
        assert [len(path) for path in found.paths[:2]] == [length, length]
        assert {len(path) for path in found.paths[2:]} <= {length // 3}
        assert len(found.paths) - 2 <= setting.distractor_dashes // (length // 3)
        ends = [{tuple(path[0, 0]), tuple(path[-1, 1])} for path in found.paths[:2]]
        markers = {tuple(marker) for marker in found.markers}
        if label:
            assert markers in ends
        else:
            assert all(len(markers & pair) == 1 for pair in ends)
        gaps = set()
        for path in found.paths:
            dashes = path[:, 1] - path[:, 0]
            np.testing.assert_allclose(np.linalg.norm(dashes, axis=1), setting.dash_length)
            angles = np.unwrap(np.arctan2(dashes[:, 0], dashes[:, 1]))
            assert np.abs(np.diff(angles)).max(initial=0) <= math.pi / 2 / setting.continuity + 1e-9
            gaps |= set(np.linalg.norm(path[1:, 0] - path[:-1, 1], axis=1).round(6))
            assert path.min() >= setting.padding
            assert path.max() <= resolution - setting.padding
        (gap,) = gaps
        assert gap in setting.margins
        # Centre lines are apart by gap and thickness; points lie on dashes a pixel apart, so up to half a pixel less.
        clear = math.sqrt((gap + setting.thickness) ** 2 - 0.5**2) - 0.05
        for i, path in enumerate(found.paths):
            for other in found.paths[:i]:
                assert min(distance(one, two) for one in path for two in other) >= clear - 0.1
        assert np.linalg.norm(found.paths[0][0, 0] - found.paths[1][0, 0]) >= setting.seed_distance


def test_paths_do_not_know_the_label():
    setting = SETTINGS[32]
    for seed in range(5):
        one, zero = (scene(np.random.default_rng(seed), setting, label) for label in (1, 0))
        assert all(np.array_equal(a, b) for a, b in zip(one.paths, zero.paths, strict=True))


def test_turns():
    """Quantiles of the density cos(κθ), integrated."""
    for continuity in (1.0, 1.8):
        theta = np.linspace(-1, 1, 20001) * math.pi / 2 / continuity
        distribution = np.cumsum(np.cos(continuity * theta))
        distribution /= distribution[-1]
        u = np.array([0.01, 0.2, 0.5, 0.83])
        np.testing.assert_allclose(turn(u, continuity), np.interp(u, distribution, theta), atol=1e-3)


@pytest.mark.slow
def test_a_picture_is_the_cover_of_each_pixel():
    resolution = 16
    setting = setting_of(resolution)
    found = scene(np.random.default_rng(4), setting, 1)
    scale, n = ANTIALIASING, ANTIALIASING * resolution
    drawn = np.zeros((n, n))
    for row in range(n):
        for column in range(n):
            point = np.array([row + 0.5, column + 0.5]) / scale
            dash = min(distance(one, (point, point)) for path in found.paths for one in path) * scale
            disc = min(np.linalg.norm(point - marker) for marker in found.markers) * scale
            radius = scale * setting.thickness / 2
            line = min(1, setting.contrast * min(max(radius + 0.5 - dash, 0), 2 * radius, 1))
            drawn[row, column] = max(line, min(max(scale * setting.marker_radius + 0.5 - disc, 0), 1))
    image = 255 * drawn.reshape(resolution, scale, resolution, scale).mean((1, 3))
    assert np.abs(picture(found, setting) - image).max() <= 3  # segments of the reference are 60 points


def test_a_marker_at_the_border_is_cut():
    setting = SETTINGS[32]
    path = np.array([[[1.0, 1.0], [1.0, 3.0]]])
    image = picture(Scene([path], np.array([[0.5, 0.5], [31.5, 31.5]]), 1), setting)
    assert image[0, 0] == image[31, 31] == 255
    assert image[10:28, 10:28].max() == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pathfinder_files, "PART", 20)
        assert pathfinder_files.make(root / "pathfinder16", 16, seed=5, size=70)
    return root / "pathfinder16"


def test_files_are_those_of_the_host(made):
    place = made / FOLDER
    assert sorted(path.name for path in (place / "metadata").iterdir()) == ["0.npy", "1.npy", "2.npy", "3.npy"]
    for part, n in enumerate((20, 20, 20, 10)):
        lines = (place / "metadata" / f"{part}.npy").read_text().splitlines()
        assert len(lines) == n
        assert sum(int(line.split()[3]) for line in lines) == n // 2
        for i, line in enumerate(lines):
            assert line.split()[:3] == [f"imgs/{part}", f"sample_{i}.png", str(i)]
            with Image.open(place / f"imgs/{part}" / f"sample_{i}.png") as image:
                assert (image.size, image.mode) == ((16, 16), "L")


@pytest.mark.slow
def test_the_bytes_depend_on_neither_processes_nor_interruptions(made, tmp_path, monkeypatch):
    monkeypatch.setattr(pathfinder_files, "PART", 20)
    pathfinder_files.make(tmp_path / "many", 16, seed=5, size=70, processes=2)
    assert contents(tmp_path / "many") == contents(made)

    class Killed(BaseException):
        pass

    def stop(images):
        heard.append(images)
        if sum(heard) >= 40:
            raise Killed

    heard: list[int] = []
    with pytest.raises(Killed):
        pathfinder_files.make(tmp_path / "stopped", 16, seed=5, size=70, advance=stop)
    place = tmp_path / "stopped" / FOLDER
    (place / "metadata" / "1.npy").unlink()  # killed between the images and their list
    (place / "imgs" / f".2.999{making.PARTIAL}").mkdir()  # killed among images
    (place / "metadata" / f".2.npy.999{making.PARTIAL}").touch()
    with pytest.raises(FileNotFoundError, match=r"is incomplete. hope data pathfinder -r 16 --out .* continues"):
        pathfinder_images.pathfinder(16, str(tmp_path / "stopped"))
    assert pathfinder_files.make(tmp_path / "stopped", 16, seed=5, size=70)
    assert contents(tmp_path / "stopped") == contents(made)
    assert not pathfinder_files.make(tmp_path / "stopped", 16, seed=5, size=70)
    (place / "metadata" / "3.npy").unlink()
    assert pathfinder_files.make(tmp_path / "stopped", 16, seed=5, size=70)
    assert contents(tmp_path / "stopped") == contents(made)


def test_the_splits_are_the_host_s(made):
    """Its random_split of the images in the order of their lists, and its transform."""
    images = [
        (made / FOLDER / line.split()[0] / line.split()[1], int(line.split()[3]))
        for part in range(4)
        for line in (made / FOLDER / "metadata" / f"{part}.npy").read_text().splitlines()
    ]
    generator = torch.Generator().manual_seed(42)
    expected = torch.utils.data.random_split(images, [56, 7, 7], generator=generator)
    splits = pathfinder_images.pathfinder(16, str(made))
    for part, own in zip(expected, (splits["train"], splits["val"], splits["test"]), strict=True):
        assert len(part) == len(own)
        for (path, label), (x, y) in zip(part, own, strict=True):
            pixels = np.asarray(Image.open(path), dtype=np.float32)
            assert y == label
            np.testing.assert_allclose(x.numpy(), pixels.reshape(256, 1) / 255, rtol=1e-6)


def test_kept_images_are_the_same_and_are_not_read_again(made, monkeypatch):
    read = pathfinder_images.pathfinder(16, str(made), pool=2)["train"]
    kept = pathfinder_images.pathfinder(16, str(made), pool=2, keep=True)["train"]
    expected = list(read)
    monkeypatch.setattr(pathfinder_images, "read_image", None)
    for (x, y), (other, label) in zip(expected, kept, strict=True):
        assert torch.equal(x, other)
        assert y == label


def test_options(made):
    plain = pathfinder_images.pathfinder(16, str(made))["val"][0][0]
    assert torch.equal(pathfinder_images.pathfinder(16, str(made), center=True)["val"][0][0], 2 * plain - 1)
    pooled = pathfinder_images.pathfinder(16, str(made), pool=4)["val"][0][0]
    torch.testing.assert_close(pooled.flatten(), plain.view(4, 4, 4, 4).mean((1, 3)).flatten())
    tokens = pathfinder_images.pathfinder(16, str(made), tokenize=True)["val"][0][0]
    assert torch.equal(tokens, (plain.flatten() * 255).round().long())
    with pytest.raises(TypeError, match=r"keep must be true or false"):
        pathfinder_images.pathfinder(16, str(made), keep="yes")
    with pytest.raises(ValueError, match=r"pool must divide the resolution, 16; got 5"):
        pathfinder_images.pathfinder(16, str(made), pool=5)
    with pytest.raises(ValueError, match=r"must leave no split of 70 images empty; got 0.9 and 0.1"):
        pathfinder_images.pathfinder(16, str(made), val_split=0.9)
    with pytest.raises(ValueError, match="resolution must be one of '16', '32', '64', '128', '256'; got '17'"):
        pathfinder_files.make(made, 17)


def test_damaged_images(made, tmp_path):
    image = made / FOLDER / "imgs" / "0" / "sample_3.png"
    whole = image.read_bytes()
    try:
        image.write_bytes(b"")
        with pytest.raises(ValueError, match=r"1 of 70 samples of Pathfinder are damaged, the first is .*sample_3.png"):
            pathfinder_images.pathfinder(16, str(made))
        for content, message in ((whole[:40], "must be an image; it is damaged"), (b"text", "must be an image")):
            image.write_bytes(content)
            with pytest.raises(ValueError, match=message):
                pathfinder_images.read_image(image, 16)
        image.write_bytes(whole)
        with pytest.raises(ValueError, match="must have 32 x 32 pixels; it has"):
            pathfinder_images.read_image(image, 32)
    finally:
        image.write_bytes(whole)
    with pytest.raises(
        FileNotFoundError, match=r"hope data pathfinder -r 64 --out .* makes it, or name another folder"
    ):
        pathfinder_images.pathfinder(64, str(tmp_path / "pathfinder" / "pathfinder64"))
