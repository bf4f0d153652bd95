"""Checkpoints on the disk: whole or not at all, and readable without running any code of theirs."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from pytorch_lightning.plugins import CheckpointIO
from torch import Tensor

from hope_ssm.storage import whole_file
from hope_ssm.workbench.run_directory import LAST, PREVIOUS

_ARRAY = "numpy array"  # the key of an array among plain values
_PLAIN = (str, bytes, int, float, bool, complex, type(None), torch.dtype, torch.device, torch.Size)


class WholeCheckpointIO(CheckpointIO):
    """Write a checkpoint beside its place, bring it to the disk, then put it there; read it with ``weights_only``.

    Before ``last.ckpt`` is replaced it is kept as ``previous.ckpt``, in case the new one turns out unreadable later.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write ``checkpoint``, with NumPy numbers as Python's.

        Raises:
            TypeError: it holds something that could not be read back.
            OSError: no room, no permission; the old checkpoint stays.
        """
        path = Path(path)
        buffer = io.BytesIO()
        torch.save(plain(checkpoint), buffer)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            file.write(buffer.getbuffer())
            if path.name == Path(LAST).name and path.is_file():
                _keep(path, path.with_name(Path(PREVIOUS).name))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Return a checkpoint, or the weights that spawned processes hand back, on the CPU; no code of it is run."""
        return with_arrays(torch.load(path, map_location="cpu", weights_only=True))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint, if it is there."""
        Path(path).unlink(missing_ok=True)


def _keep(path: Path, previous: Path) -> None:
    """Give a file a second name; where the file system has no links, leave it."""
    fresh = previous.with_name(f".{previous.name}.{os.getpid()}.partial")
    try:
        fresh.unlink(missing_ok=True)
        os.link(path, fresh)
        fresh.replace(previous)
    except OSError:
        fresh.unlink(missing_ok=True)


def plain(value: Any, where: str = "the checkpoint") -> Any:
    """Return nested mappings and sequences with NumPy's numbers and arrays, paths and sets in a readable form.

    Args:
        value: tensors, numbers, text, None, and mappings, sequences and sets of these.
        where: the name of the value, for messages.

    Raises:
        TypeError: something else, which no one could read back safely.
    """
    if isinstance(value, Tensor) or type(value) in _PLAIN:
        return value
    if isinstance(value, np.generic):
        return plain(value.item(), where)
    if isinstance(value, np.ndarray) and value.dtype != object:
        return {_ARRAY: _tensor(value, where), "dtype": value.dtype.str}
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        pairs = {plain(key, where): plain(item, f"{where}[{key!r}]") for key, item in value.items()}
        same = type(value) in (dict, OrderedDict) and all(pairs.get(key) is item for key, item in value.items())
        return value if same else pairs
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [plain(item, where) for item in value]
        return items if isinstance(value, list) else tuple(items) if isinstance(value, tuple) else set(items)
    if isinstance(value, (str, int, float)):  # an enumeration's member, say
        kind: Any = next(kind for kind in (str, int, float) if isinstance(value, kind))
        return kind(getattr(value, "value", value))
    raise TypeError(
        f"{where} must hold tensors, numbers and text alone, to be readable later; got {type(value).__name__}. "
        "Let the state_dict() of the callback or module return such."
    )


def _tensor(array: np.ndarray, where: str) -> Tensor:
    try:
        return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))
    except TypeError:
        raise TypeError(f"{where} must be an array of numbers; got one of {array.dtype}.") from None


def with_arrays(value: Any) -> Any:
    """Undo ``plain`` for arrays."""
    if isinstance(value, dict):
        if set(value) == {_ARRAY, "dtype"}:
            return value[_ARRAY].numpy().astype(value["dtype"])
        for key in value:
            value[key] = with_arrays(value[key])
    elif isinstance(value, list):
        value[:] = map(with_arrays, value)
    elif type(value) is tuple:
        return tuple(map(with_arrays, value))
    return value
