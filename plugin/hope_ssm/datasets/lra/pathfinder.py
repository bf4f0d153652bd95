"""Pathfinder: are two marked ends those of one dashed path? The scene, and its picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hope_ssm.checks import check_choice

ANTIALIASING = 2  # pixels drawn for one of the image, along each axis
CONTOUR_LENGTHS = {"curv_baseline": 6, "curv_contour_length_9": 9, "curv_contour_length_14": 14}
PROPOSALS = 8  # directions tried for a dash
BACK = 3  # dashes taken back in a dead end
STEPS = 3  # for each dash of a path, before it is given up
PATH_TRIALS = 20  # beginnings tried for a path before the whole scene begins anew


@dataclass(frozen=True)
class Setting:
    """Lengths in pixels of the image.

    Attributes:
        resolution: the image has resolution × resolution pixels.
        padding: free border.
        margins: gap between dashes; one of them is drawn for each image.
        seed_distance: the two long paths begin at least so far from each other.
        marker_radius: of the discs at two ends.
        dash_length: length of a dash.
        thickness: of a dash.
        continuity: κ, a dash turns by less than π/(2κ) from the one before.
        distractor_dashes: dashes of all short paths together; one has a third of the dashes of a long path.
        contrast: of a dash to a marker; above 1 it makes up for dashes thinner than a pixel.
    """

    resolution: int
    padding: float
    margins: tuple[float, ...]
    seed_distance: float
    marker_radius: float
    dash_length: float
    thickness: float
    continuity: float
    distractor_dashes: int
    contrast: float


# 32 to 256: Long Range Arena's parameters. 16 is ours, for experiments on a CPU.
SETTINGS = {
    16: Setting(16, 1, (1,), 4, 1.5, 2, 0.5, 1.0, 6, 1.5),
    32: Setting(32, 1, (1,), 7, 1.5, 2, 0.5, 1.0, 20, 1.5),
    64: Setting(64, 1, (1,), 12, 2.5, 5, 1.0, 1.8, 22, 0.8),
    128: Setting(128, 1, (2, 3), 20, 3.0, 5, 1.5, 1.8, 35, 0.9),
    256: Setting(256, 22, (3,), 27, 5.0, 5, 2.0, 1.8, 30, 1.0),
}
SMALL_CONTOUR = 6  # dashes of a long path at resolution 16, whatever the contour length


@dataclass(frozen=True)
class Scene:
    """Paths of dashes, the two long ones first; a dash is (begin, end), (K, 2, 2) a path, each point (row, column)."""

    paths: list[np.ndarray]
    markers: np.ndarray  # (2, 2)
    label: int


def turn(u: np.ndarray | float, continuity: float) -> np.ndarray:
    """θ with density ∝ cos(κθ) on |θ| < π/(2κ), from u uniform on [0, 1):  θ = arcsin(2u - 1)/κ."""
    return np.arcsin(2 * np.asarray(u) - 1) / continuity


class _Canvas:
    """The points of dashes that are there, and what may be added."""

    def __init__(self, setting: Setting, margin: float) -> None:
        self.setting, self.margin = setting, margin
        self.low = setting.padding + setting.thickness / 2
        self.high = setting.resolution - self.low
        self.clearance = margin + setting.thickness
        self.along = np.linspace(0, 1, int(np.ceil(setting.dash_length)) + 1)
        self.points = np.empty((0, 2))  # of finished paths
        self.distances = np.empty(0)  # how far others must stay from each

    def keep(self, points: np.ndarray, distance: float) -> None:
        """Demand ``distance`` from these points from now on."""
        self.points = np.concatenate([self.points, points])
        self.distances = np.concatenate([self.distances, np.full(len(points), distance)])

    def free(self, points: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Say of each row of points (P, Q, 2) if it is inside the borders and clear of paths and of ``own`` points."""
        inside = np.all((points >= self.low) & (points <= self.high), axis=(1, 2))
        others = np.concatenate([self.points, own])
        if not len(others):
            return inside
        distances = np.concatenate([self.distances, np.full(len(own), self.clearance)])
        apart = points[:, :, None] - others
        return inside & ((apart**2).sum(-1) >= distances**2).all((1, 2))

    def dashes(self, starts: np.ndarray, angles: np.ndarray) -> np.ndarray:
        """Points (P, Q, 2) along dashes from ``starts`` in directions ``angles``."""
        direction = np.stack([np.sin(angles), np.cos(angles)], -1)
        return starts[:, None] + self.setting.dash_length * self.along[:, None] * direction[:, None]

    def path(self, generator: np.random.Generator, start: np.ndarray, length: int) -> np.ndarray | None:
        """Return the points (K, Q, 2) of ``length`` dashes from ``start``, or None; it goes back in dead ends."""
        angle = generator.random() * 2 * np.pi
        path = self.dashes(start[None], np.array([angle]))
        if not self.free(path, np.empty((0, 2)))[0]:
            return None
        directions = [angle]
        for _ in range(STEPS * length):
            if len(path) == length:
                return path
            angles = directions[-1] + turn(generator.random(PROPOSALS), self.setting.continuity)
            step = self.margin * np.stack([np.sin(angles), np.cos(angles)], -1)
            proposals = self.dashes(path[-1, -1] + step, angles)
            fine = self.free(proposals, path[:-1].reshape(-1, 2))
            if not fine.any():
                path, directions = path[:-BACK], directions[:-BACK]
                if not directions:
                    return None
                continue
            first = int(fine.argmax())
            directions.append(angles[first])
            path = np.concatenate([path, proposals[first : first + 1]])
        return None

    def some_path(
        self, generator: np.random.Generator, length: int, away: np.ndarray | None = None
    ) -> np.ndarray | None:
        """Return a path from anywhere (``seed_distance`` or farther from ``away``), or None if none was found."""
        for _ in range(PATH_TRIALS):
            start = self.low + (self.high - self.low) * generator.random(2)
            if away is None or ((start - away) ** 2).sum() >= self.setting.seed_distance**2:
                path = self.path(generator, start, length)
                if path is not None:
                    return path
        return None


def scene(generator: np.random.Generator, setting: Setting, label: int, contour_length: int = 14) -> Scene:
    """Return two long paths, short ones, and two markers: at both ends of one long path (1), or one on each (0).

    The paths do not know the label, nor do the short ones, which keep clear of all four ends.

    Args:
        generator: of all that is random in it.
        setting: sizes.
        label: 0 or 1.
        contour_length: dashes of a long path.

    Source: D. Linsley, J. Kim, V. Veerabadran, C. Windolf, T. Serre, "Learning long-range spatial dependencies with
    horizontal gated recurrent units", NeurIPS 2018 (arXiv 1805.08315); parameters of Y. Tay et al., "Long Range Arena",
    arXiv 2011.04006. The law of turns and the rules of clearance are our own.
    """
    length = SMALL_CONTOUR if setting.resolution == 16 else contour_length
    short = max(1, length // 3)
    while True:
        canvas = _Canvas(setting, float(generator.choice(setting.margins)))
        first = canvas.some_path(generator, length)
        if first is None:
            continue
        canvas.keep(first.reshape(-1, 2), canvas.clearance)
        canvas.keep(first[[0, -1], [0, -1]], setting.marker_radius + canvas.clearance)
        second = canvas.some_path(generator, length, away=first[0, 0])
        if second is None:
            continue
        ends = np.stack([path[[0, -1], [0, -1]] for path in (first, second)])  # (path, end, coordinate)
        apart = np.linalg.norm(ends[0][:, None] - ends[1][None], axis=-1).min()
        reach = np.linalg.norm(first.reshape(-1, 2)[:, None] - ends[1][None], axis=-1).min()
        if apart >= 2 * setting.marker_radius + 1 and reach >= setting.marker_radius + canvas.clearance:
            break
    canvas.keep(second.reshape(-1, 2), canvas.clearance)
    canvas.keep(ends[1], setting.marker_radius + canvas.clearance)
    paths = [first, second]
    for _ in range(setting.distractor_dashes // short):
        path = canvas.some_path(generator, short)
        if path is not None:
            canvas.keep(path.reshape(-1, 2), canvas.clearance)
            paths.append(path)
    chosen = int(generator.integers(2))
    markers = ends[chosen] if label else np.stack([ends[0, chosen], ends[1, 1 - chosen]])
    return Scene([path[:, [0, -1]] for path in paths], markers, label)


def _discs(points: np.ndarray, ends: np.ndarray, radius: float, shape: int) -> np.ndarray:
    """Return how much of each drawn pixel is within ``radius`` of one of the segments; all in drawn pixels."""
    reach = int(np.ceil(np.abs(ends - points).max() / 2 + radius)) + 1
    offsets = np.arange(-reach, reach + 1)
    centre = np.floor((points + ends) / 2).astype(int)
    rows = centre[:, 0, None, None] + offsets[:, None]
    columns = centre[:, 1, None, None] + offsets[None]
    pixel = np.stack(np.broadcast_arrays(rows + 0.5, columns + 0.5), -1) - points[:, None, None]
    along = (ends - points)[:, None, None]
    share = (pixel * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-12)
    distance = np.linalg.norm(pixel - np.clip(share, 0, 1)[..., None] * along, axis=-1)
    cover = np.clip(radius + 0.5 - distance, 0, min(1, 2 * radius))
    inside = (rows >= 0) & (rows < shape) & (columns >= 0) & (columns < shape)
    picture = np.zeros((shape, shape))
    rows, columns = np.broadcast_arrays(rows, columns)
    np.maximum.at(picture, (rows[inside], columns[inside]), cover[inside])
    return picture


def picture(scene: Scene, setting: Setting) -> np.ndarray:
    """Return the image (R, R) uint8: markers white, dashes grey by ``contrast``, on black."""
    scale, shape = ANTIALIASING, ANTIALIASING * setting.resolution
    dashes = scale * np.concatenate(scene.paths)
    lines = _discs(dashes[:, 0], dashes[:, 1], scale * setting.thickness / 2, shape)
    markers = _discs(scale * scene.markers, scale * scene.markers, scale * setting.marker_radius, shape)
    drawn = np.maximum(np.minimum(setting.contrast * lines, 1), markers)
    image = drawn.reshape(setting.resolution, scale, setting.resolution, scale).mean((1, 3))
    return np.round(255 * image).astype(np.uint8)


def setting_of(resolution: int) -> Setting:
    """Return the setting of a resolution: 16, 32, 64, 128 or 256."""
    check_choice("resolution", str(resolution), [str(known) for known in SETTINGS])
    return SETTINGS[int(resolution)]
