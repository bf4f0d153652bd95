"""What is in a folder of data: every sample read, counted and, where that can be known, evaluated again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np

from hope_ssm.datasets import cifar
from hope_ssm.datasets.lra.files import TOLERATED, Damage
from hope_ssm.datasets.lra.making import RECIPE
from hope_ssm.datasets.lra.pathfinder import CONTOUR_LENGTHS
from hope_ssm.datasets.lra.pathfinder_images import labelled, read_image
from hope_ssm.datasets.lra.texts import SPLIT_FILES, aan_rows, imdb_rows, listops_rows

FOLDS: dict[int, Callable[[list[int]], int]] = {
    ord("N"): min,
    ord("A"): max,
    ord("D"): lambda values: int(median(values)),
    ord("S"): lambda values: sum(values) % 10,
}


def evaluate(symbols: np.ndarray) -> tuple[int | None, int]:
    """Return value and depth of a list in the symbols of ``listops_symbols``.

    The value is None where brackets do not match.
    """
    stack: list[list[int]] = [[]]
    operators: list[int] = []
    depth = 0
    for symbol in symbols.tolist():
        if symbol in FOLDS:
            operators.append(symbol)
            stack.append([])
            depth = max(depth, len(operators))
        elif symbol != ord("]"):
            stack[-1].append(symbol - ord("0"))
        else:
            values = stack.pop()
            if not operators or not values:
                return None, depth
            stack[-1].append(FOLDS[operators.pop()](values))
    return (stack[0][0] if len(stack) == 1 and len(stack[0]) == 1 else None), depth


def _shares(counts: Counter, names: dict | None = None) -> str:
    total = sum(counts.values())
    return ", ".join(f"{(names or {}).get(key, key)} {n / total:.1%}" for key, n in sorted(counts.items()))


def _lengths(lengths: list[int]) -> str:
    low, middle, high = np.percentile(lengths, [5, 50, 95]).round().astype(int)
    return f"lengths {min(lengths)} to {max(lengths)}, 90 % of them {low} to {high}, median {middle}"


def _listops(folder: Path, damage: Damage) -> Iterator[str]:
    seen = set()
    for name, file in SPLIT_FILES["listops"].items():
        lengths: list[int] = []
        labels: Counter[int] = Counter()
        operators: Counter[int] = Counter()
        depths: Counter[int] = Counter()
        for symbols, label in listops_rows(folder / file, damage):
            value, depth = evaluate(symbols)
            damage.fine += 1
            if value != label:
                damage.found.append(f"a sample of {folder / file} with target {label} and value {value}")
            seen.add(hash(symbols.tobytes()))
            lengths.append(len(symbols))
            labels[label] += 1
            depths[depth] += 1
            operators.update({kind: int((symbols == kind).sum()) for kind in FOLDS})
        yield f"{name}: {len(lengths)} samples" + (f", {_lengths(lengths)}" if lengths else "")
        yield f"  values: {_shares(labels)}"
        yield f"  operators: {_shares(operators, dict(zip(FOLDS, ('MIN', 'MAX', 'MED', 'SM'), strict=True)))}"
        yield f"  operators inside each other: {_shares(depths)}"
    damage.found += ["a sample that is there twice"] * (damage.fine - len(seen))


def _aan(folder: Path, damage: Damage) -> Iterator[str]:
    for name, file in SPLIT_FILES["aan"].items():
        lengths: list[int] = []
        labels: Counter[int] = Counter()
        for first, second, label in aan_rows(folder / file, damage, 2**62):
            lengths += [len(first), len(second)]
            labels[label] += 1
            damage.fine += 1
        yield f"{name}: {sum(labels.values())} pairs" + (f", {_lengths(lengths)}" if lengths else "")
        yield f"  classes: {_shares(labels)}"


def _imdb(folder: Path, damage: Damage) -> Iterator[str]:
    for split in ("train", "test"):
        rows = [(len(text), label) for text, label in imdb_rows(folder / split, damage, 2**62)]
        damage.fine += len(rows)
        yield f"{split}: {len(rows)} reviews" + (f", {_lengths([n for n, _ in rows])}" if rows else "")
        yield f"  classes: {_shares(Counter(label for _, label in rows))}"


def _pathfinder(folder: Path, damage: Damage) -> Iterator[str]:
    labels: Counter = Counter()
    resolution = int(folder.parent.name.removeprefix("pathfinder").split("-")[0])
    brightness = []
    for image, label in labelled(folder, damage):
        try:
            brightness.append(read_image(image, resolution).mean())
            labels[label] += 1
            damage.fine += 1
        except ValueError as error:
            damage.found.append(str(error))
    yield f"{sum(labels.values())} images of {resolution} x {resolution}"
    if labels:
        yield f"  labels: {_shares(labels)}; mean grey level {np.mean(brightness):.1f} of 255"


def _cifar(folder: Path, damage: Damage) -> Iterator[str]:
    for split, files in (("train", cifar.TRAIN_FILES), ("test", cifar.TEST_FILES)):
        _, classes = cifar.read([folder / name for name in files])
        yield f"{split}: {len(classes)} images"
        yield f"  classes: {_shares(Counter(classes.tolist()))}"


def places(root: Path) -> Iterator[tuple[Path, Callable[[Path, Damage], Iterator[str]]]]:
    """Yield every folder of data below ``root`` in its place, and what reads it."""
    for name, read in (("listops", _listops), ("aan", _aan)):
        if (root / name).is_dir():
            yield root / name, read
    if (root / "imdb" / "aclImdb").is_dir():
        yield root / "imdb" / "aclImdb", _imdb
    if (root / "cifar" / cifar.FOLDER).is_dir():
        yield root / "cifar" / cifar.FOLDER, _cifar
    for folder in sorted((root / "small").glob("listops-*")):
        yield folder, _listops
    for folder in [*sorted((root / "pathfinder").glob("pathfinder*")), *sorted((root / "small").glob("pathfinder*"))]:
        if folder.name.removeprefix("pathfinder").split("-")[0].isdigit():
            for level in CONTOUR_LENGTHS:
                if (folder / level).is_dir():
                    yield folder / level, _pathfinder


def check(root: Path, say: Callable[[str], None]) -> bool:
    """Read everything below ``root``, ``say`` what it is, and return whether all of it can be used.

    Raises:
        FileNotFoundError: there is nothing.
    """
    fine, found = True, False
    for folder, read in places(root):
        found = True
        say(f"{folder}")
        note, damage = folder / RECIPE, Damage(str(folder))
        if note.is_file() and not json.loads(note.read_text(encoding="utf-8"))["whole"]:
            say("  incomplete: run the same hope data again, it continues where it stopped.")
            fine = False
            continue
        try:
            for line in read(folder, damage):
                say(f"  {line}")
        except (OSError, ValueError) as error:
            say(f"  UNUSABLE: {error}")
            fine = False
            continue
        for one in damage.found[:5]:
            say(f"  damaged: {one}")
        if not damage.tolerable:
            say(f"  UNUSABLE: {len(damage.found)} samples are damaged, more than {TOLERATED:.1%}.")
            fine = False
    if not found:
        raise FileNotFoundError(
            f"{root} must hold listops, aan, imdb, cifar, pathfinder or small; it holds none of them."
        )
    return fine
