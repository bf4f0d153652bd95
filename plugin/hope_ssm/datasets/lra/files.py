"""Where the data lie, and what of them cannot be read."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from hope_ssm.datasets.lra.making import RECIPE

logger = logging.getLogger(__name__)

TOLERATED = 0.001  # share of damaged samples that are left out; beyond, the data set is refused


def place(data_dir: str | None, *default: str) -> Path:
    """Return ``data_dir``, by default the folder ``default`` in ``$DATA_PATH``, else in ``data``."""
    return Path(data_dir if data_dir is not None else Path(os.environ.get("DATA_PATH", "data"), *default)).absolute()


def check_there(folder: Path, names: list[str], mend: str) -> None:
    """Raise unless the folder has these and is not incomplete; ``mend`` says what makes it."""
    note = folder / RECIPE
    if note.is_file() and not json.loads(note.read_text(encoding="utf-8"))["whole"]:
        raise FileNotFoundError(f"{folder} is incomplete. {mend} continues it.")
    for name in names:
        if not (folder / name).exists():
            raise FileNotFoundError(
                f"{folder / name} is not there. {mend} makes it, or name another folder with dataset.data_dir or "
                "DATA_PATH."
            )


class Damage:
    """The samples of a data set that cannot be read.

    Args:
        what: the data set, for messages.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.found: list[str] = []
        self.fine = 0  # samples

    @property
    def tolerable(self) -> bool:
        """Whether at most 1 in 1000 samples are damaged."""
        return len(self.found) <= TOLERATED * (self.fine + len(self.found))

    def check(self) -> None:
        """Log what is left out; raise if it is more than 1 in 1000."""
        if not self.found:
            return
        total = self.fine + len(self.found)
        text = f"{len(self.found)} of {total} samples of {self.what} are damaged, the first is {self.found[0]}"
        if not self.tolerable:
            raise ValueError(
                f"{text}; at most {TOLERATED:.1%} may be. hope data check says more; make or get them anew."
            )
        logger.warning("%s; they are left out.", text)
