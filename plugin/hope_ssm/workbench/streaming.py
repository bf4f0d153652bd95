"""Long sequences in consecutive chunks: the state carried from one batch to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hope_ssm.checks import check_choice, check_known

MODES = ("none", "reset", "bptt", "tbptt")
OPTIONS = ("mode", "n_context", "n_context_eval")


def detached(state: Any) -> Any:
    """Return a state, or a list of states, cut from the graph that made it."""
    return state.detach() if isinstance(state, Tensor) else None if state is None else [detached(s) for s in state]


def _batch(state: Any) -> int | None:
    """The batch size of a state, or of a list of states."""
    if isinstance(state, Tensor):
        return len(state)
    return next((size for size in map(_batch, state or ()) if size is not None), None)


def _first(state: Any, rows: int) -> Any:
    """The states of the first sequences of a batch."""
    return state[:rows] if isinstance(state, Tensor) else None if state is None else [_first(s, rows) for s in state]


@dataclass(frozen=True)
class Recurrence:
    """Encoder and backbone, as a ``Stream`` calls them: what a batch leaves to the next one."""

    encoder: nn.Module
    model: Any
    irregular: bool = False  # whether the batch has step_scale

    def default_state(self, *batch_shape: int) -> list[Any]:
        """Return the backbone's zero state."""
        return self.model.default_state(*batch_shape)

    def advance(self, x: Tensor, state: list[Any]) -> list[Any]:
        """Return the state after inputs (B, L, d_input)."""
        return self.model(self.encoder(x), state)[1]


class Stream:
    """The state that one split carries from batch to batch, under the host's ``train.state``.

    mode: ``None`` or ``"none"``: no state.  ``"tbptt"``: carried, without its gradient; zero where a batch says
    ``reset``.  ``"reset"``: the same, and zero at every (n_context + 1)-th batch.  ``"bptt"``: the state after the
    n_context batches before this one (none from before a ``reset``), passed through again without gradient under the
    present parameters. n_context None is without end; 0 is no state (tbptt does not look at it). Row i of a batch goes
    on with row i of the one before; a smaller batch, the last of an epoch, leaves the others, a larger one begins anew.

    Args:
        mode: see above.
        n_context: see above.
    """

    def __init__(self, mode: str | None, n_context: int | None) -> None:
        self.mode = check_choice("train.state.mode", mode or "none", MODES)
        whole = isinstance(n_context, int) and not isinstance(n_context, bool) and n_context >= 0
        if n_context is not None and not whole:
            raise ValueError(f"train.state.n_context must be a whole number of at least 0, or null; got {n_context!r}.")
        if n_context == 0 and self.mode != "tbptt":
            self.mode = "none"
        self.n_context = n_context
        self.restart()

    def restart(self) -> None:
        """Forget everything, as at the start of an epoch."""
        self.state: Any = None
        self.memory: list[Tensor] = []

    @property
    def carried(self) -> tuple[Any, list[Tensor]]:
        """What goes from batch to batch, for a checkpoint in the middle of an epoch."""
        return self.state, self.memory

    @carried.setter
    def carried(self, carried: tuple[Any, Any]) -> None:
        self.state, self.memory = carried[0], list(carried[1])

    def before(self, model: Any, x: Tensor, index: int, reset: bool | None = None) -> Any:
        """Return the state for batch number ``index``, or None.

        Args:
            model: has ``default_state(B)`` and ``advance(x, state) -> state``.
            x: the batch's inputs (B, L, d).
            index: number of the batch in the epoch.
            reset: whether its sequences begin, if the batch says so.
        """
        if self.mode == "none":
            return None
        if self.mode == "tbptt" and reset is None:
            raise ValueError(
                "with train.state.mode=tbptt a batch must say whether its sequences begin; got none that does. "
                "Set loader.chunk_len."
            )
        if reset:
            self.restart()
        if self.mode == "bptt" and getattr(model, "irregular", False):
            raise ValueError(
                "train.state.mode must not be bptt, which hears earlier batches again at equal steps, with batches "
                "that have step_scale; use reset or tbptt."
            )
        if self.mode == "bptt":
            state = model.default_state(len(x))
            if any(len(chunk) < len(x) for chunk in self.memory):
                self.restart()
            with torch.no_grad():
                for chunk in self.memory:
                    state = model.advance(chunk[: len(x)], state)
            self.memory = [*self.memory, x][-(self.n_context or 0) :]
            return state
        if self.mode == "reset" and self.n_context is not None and index % (self.n_context + 1) == 0:
            self.restart()
        carried = _batch(self.state)
        if carried is None or carried < len(x):
            self.state = model.default_state(len(x))
        elif carried > len(x):
            self.state = _first(self.state, len(x))
        return self.state

    def after(self, state: Any) -> None:
        """Keep the state after a batch, cut from its graph."""
        if self.mode in ("reset", "tbptt"):
            self.state = detached(state)


def streams(options: Mapping[str, Any] | None) -> dict[str, Stream]:
    """Return the streams of train, val and test for the configuration ``train.state``."""
    options = dict(options or {})
    check_known("train.state", options, OPTIONS)
    mode, context = options.get("mode"), options.get("n_context", 0)
    evaluation = options.get("n_context_eval", context)
    if mode in ("reset", "bptt") and context == 0:
        raise ValueError(f"train.state.n_context must be at least 1 with mode={mode}, or nothing is carried; got 0.")
    return {"train": Stream(mode, context), "val": Stream(mode, evaluation), "test": Stream(mode, evaluation)}
