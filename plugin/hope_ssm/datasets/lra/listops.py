"""ListOps: nested lists of digits under minimum, maximum, median and sum modulo 10, to be evaluated."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from hope_ssm.checks import check_positive_integer
from hope_ssm.datasets.lra.making import (
    check_space,
    claim,
    finish,
    make_parts,
    one_at_a_time,
    part_generator,
    whole_file,
)
from hope_ssm.datasets.randomness import check_seed

OPERATORS = ("[MIN", "[MAX", "[MED", "[SM")
END = "]"
HEADER = b"Source\tTarget\n"
SPLITS = {"train": 0.96, "val": 0.02, "test": 0.02}
SIZE = 100_000
MAX_DEPTH = 10
MAX_ARGUMENTS = 10
LENGTHS = (500, 2000)  # a sample is longer than the first and shorter than the second, parentheses not counted
SHORT = (15, 129)  # lengths of a variant for experiments on a CPU
PART = 500  # samples
BYTES = 3.5  # of a symbol, about

# One draw from 0 … 1439 is one node: below 360, a quarter, it is one of 4 operators with 2 … 10 arguments, and above
# a digit. At the greatest depth every draw is a digit, its last; all are equally likely in every case.
NODES = 1440
N_OPERATOR_NODES = NODES // 4
ARGUMENTS = [2 + code // 4 % (MAX_ARGUMENTS - 1) if code < N_OPERATOR_NODES else 0 for code in range(NODES)]


def _end(codes: list[int], start: int, limit: int) -> tuple[int, int]:
    """Return where the expression that begins at ``start`` ends, and its length; stop where that is ``limit``."""
    remaining, length, i = [1], 0, start
    while remaining:
        if not remaining[-1]:
            remaining.pop()
            continue
        remaining[-1] -= 1
        arguments = ARGUMENTS[codes[i]]
        i += 1
        if arguments and len(remaining) < MAX_DEPTH:
            remaining.append(arguments)
            length += 2
        else:
            length += 1
        if length >= limit:
            break
    return i, length


def _write_expression(codes: list[int], i: int, depth: int, out: list[str]) -> tuple[int, int]:
    """Append the text of the expression at ``i``; return its value and where it ends."""
    code = codes[i]
    arguments = ARGUMENTS[code]
    i += 1
    if not arguments or depth == MAX_DEPTH:
        out.append(str(code % 10))
        return code % 10, i
    operator = code % 4
    out.append("( " * (arguments + 1) + OPERATORS[operator])
    values = []
    for _ in range(arguments):
        value, i = _write_expression(codes, i, depth + 1, out)
        values.append(value)
        out.append(")")
    out.append("] )")
    return (min, max, _median, _sum)[operator](values), i


def _median(values: list[int]) -> int:
    """The median, rounded down where it is halfway between two."""
    values = sorted(values)
    return (values[(len(values) - 1) // 2] + values[len(values) // 2]) // 2


def _sum(values: list[int]) -> int:
    return sum(values) % 10


def expressions(generator: np.random.Generator, lengths: tuple[int, int] = LENGTHS) -> Iterator[tuple[str, int]]:
    """Yield (text, value) without end.

    A node is an operator with probability 1/4, with 2 to 10 arguments, down to depth 10, and otherwise a digit; each
    choice is uniform. Expressions of more than 500 and fewer than 2000 symbols are kept, or of other ``lengths``. In
    the text, a list and its first symbol, and so on, are pairs in parentheses: ``( ( ( [MAX 2 ) 9 ) ] )``.

    Source: N. Nangia, S. R. Bowman, "ListOps: A Diagnostic Dataset for Latent Tree Learning", arXiv 1804.06028;
    lengths, depth and arguments of Y. Tay et al., "Long Range Arena", arXiv 2011.04006.
    """
    codes: list[int] = []
    i = 0
    while True:
        if len(codes) - i <= lengths[1]:  # no expression takes more draws than it has symbols
            codes = codes[i:] + generator.integers(NODES, size=2**16).tolist()
            i = 0
        end, length = _end(codes, i, lengths[1])
        if lengths[0] < length < lengths[1]:
            out: list[str] = []
            value, _ = _write_expression(codes, i, 1, out)
            yield " ".join(out), value
        i = end


def _write_part(path: Path, seed: int, stream: int, part: int, size: int, lengths: tuple[int, int]) -> int:
    drawn = expressions(part_generator(seed, stream, part), lengths)
    with whole_file(path) as file:
        for _ in range(size):
            text, value = next(drawn)
            file.write(f"{text}\t{value}\n".encode())
    return size


def sizes(size: int) -> dict[str, int]:
    """Return how many samples of ``size`` the splits have."""
    if check_positive_integer("size", size) < 50:
        raise ValueError(f"size must be at least 50, one sample for validation and one to test; got {size}.")
    evaluation = {name: int(size * SPLITS[name]) for name in ("val", "test")}
    return {"train": size - sum(evaluation.values()), **evaluation}


@one_at_a_time
def make(
    folder: Path,
    seed: int = 0,
    size: int = SIZE,
    processes: int = 1,
    advance: Callable[[int], None] = lambda samples: None,
    lengths: tuple[int, int] = LENGTHS,
) -> bool:
    """Make ``basic_{train,val,test}.tsv``, all samples distinct; return whether there was anything to do.

    Every 500 samples have random numbers of their own, so the bytes depend on seed and size alone. A stopped call
    continues where it was.

    Args:
        folder: of the files; new, or begun by this function with the same seed and size.
        seed: from 0 to 2⁶³ - 1.
        size: samples together; 96, 2 and 2 % are for training, validation and test.
        processes: how many at a time.
        advance: hears how many more samples there are.
        lengths: a sample has more symbols than the first and fewer than the second.
    """
    recipe = {"data": "listops", "seed": check_seed(seed), "size": size, "version": 1}
    recipe |= {} if tuple(lengths) == LENGTHS else {"lengths": list(lengths)}
    parts: dict[str, list[Path]] = {}
    tasks = []
    for stream, (split, n) in enumerate(sizes(size).items()):
        parts[split] = []
        for part in range(-(-n // PART)):
            path = folder / "parts" / f"{split}-{part}.tsv"
            parts[split].append(path)
            tasks.append((path, seed, stream, part, min(PART, n - part * PART), lengths))
    if claim(folder, recipe) and all((folder / f"basic_{split}.tsv").is_file() for split in SPLITS):
        return False
    (folder / "parts").mkdir(exist_ok=True)
    there = sum(task[-2] for task in tasks if task[0].is_file())
    check_space(folder, int(BYTES * lengths[1]) * (2 * size - there))
    advance(there)
    make_parts(_write_part, [task for task in tasks if not task[0].is_file()], processes, advance)
    seen: set[bytes] = set()
    for split, paths in parts.items():
        with whole_file(folder / f"basic_{split}.tsv") as file:
            file.write(HEADER)
            for path in paths:
                content = path.read_bytes()
                seen.update(hashlib.blake2b(line, digest_size=16).digest() for line in content.splitlines())
                file.write(content)
    if len(seen) != size:
        raise ValueError(f"all {size} samples must be distinct; {size - len(seen)} are not. Take another --seed.")
    finish(folder, recipe)
    shutil.rmtree(folder / "parts")
    return True
