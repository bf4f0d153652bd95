"""What the host prints while it trains."""

from __future__ import annotations

import re

DONE = "`Trainer.fit` stopped: `max_epochs="


def groups(said: str) -> list[tuple[int, float]]:
    """Return (parameters, learning rate) of the optimizer's groups as the host prints them."""
    return [(int(n), float(lr)) for n, lr in re.findall(r"Optimizer group .*\| (\d+) parameters \| lr (\S+)", said)]
