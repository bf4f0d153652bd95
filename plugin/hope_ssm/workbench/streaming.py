"""Long sequences in consecutive chunks: batches cut along time, and the state carried from one to the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from hope_ssm.checks import check_choice, check_positive_integer, nearest

MODES = ("none", "reset", "bptt", "tbptt")
OPTIONS = ("mode", "n_context", "n_context_eval")


class ChunkLoader(DataLoader):
    """(x (B, L, d), y) ↦ (x[:, :c], y, {"reset": True}), (x[:, c:2c], y, {"reset": False}), …  with c = ``chunk_len``.

    Targets of every step, y (B, L, …), are cut like x; others, the class of a sequence say, go with every chunk.
    """

    def __init__(self, *args: Any, chunk_len: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.chunk_len = check_positive_integer("loader.chunk_len", chunk_len)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, dict[str, bool]]]:
        for x, y, *more in super().__iter__():
            if more:
                raise ValueError("loader.chunk_len needs batches (x, y); got more, lengths for example.")
            along = y.ndim > 1 and y.shape[1] == x.shape[1]
            chunks = x.split(self.chunk_len, dim=1)
            targets = y.split(self.chunk_len, dim=1) if along else [y] * len(chunks)
            for i, (part, target) in enumerate(zip(chunks, targets, strict=True)):
                yield part, target, {"reset": i == 0}

    def __len__(self) -> int:
        length = self.dataset[0][0].shape[0]
        return super().__len__() * -(-length // self.chunk_len)


def detached(state: Any) -> Any:
    """Return a state, or a list of states, cut from the graph that made it."""
    return state.detach() if isinstance(state, Tensor) else None if state is None else [detached(s) for s in state]


class Stream:
    """The state that one split carries from batch to batch, under the host's ``train.state``.

    mode: ``None`` or ``"none"``: no state.  ``"tbptt"``: carried, without its gradient; zero where a batch says
    ``reset``.  ``"reset"``: the same, and zero at every (n_context + 1)-th batch.  ``"bptt"``: the state after the
    n_context batches before this one (none from before a ``reset``), passed through again without gradient under the
    present parameters. n_context None is without end; 0 is no state (tbptt does not look at it).

    Args: mode, n_context: see above.
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

    def before(self, model: Any, x: Tensor, index: int, reset: bool | None = None) -> Any:
        """Return the state for batch number ``index``, or None.

        Args: model: has ``default_state(B)`` and ``advance(x, state) -> state``; x: the batch's inputs (B, L, d);
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
        if self.mode == "bptt":
            state = model.default_state(len(x))
            with torch.no_grad():
                for chunk in self.memory:
                    state = model.advance(chunk, state)
            self.memory = [*self.memory, x][-(self.n_context or 0) :]
            return state
        if self.mode == "reset" and self.n_context is not None and index % (self.n_context + 1) == 0:
            self.restart()
        if self.state is None:
            self.state = model.default_state(len(x))
        return self.state

    def after(self, state: Any) -> None:
        """Keep the state after a batch, cut from its graph."""
        if self.mode in ("reset", "tbptt"):
            self.state = detached(state)


def streams(options: Mapping[str, Any] | None) -> dict[str, Stream]:
    """Return the streams of train, val and test for the configuration ``train.state``."""
    options = dict(options or {})
    for key in options:
        if key not in OPTIONS:
            raise TypeError(
                f"train.state has no option {key!r}; valid are {', '.join(OPTIONS)}.{nearest(key, OPTIONS)}"
            )
    mode, context = options.get("mode"), options.get("n_context", 0)
    evaluation = options.get("n_context_eval", context)
    if mode in ("reset", "bptt") and context == 0:
        raise ValueError(f"train.state.n_context must be at least 1 with mode={mode}, or nothing is carried; got 0.")
    return {"train": Stream(mode, context), "val": Stream(mode, evaluation), "test": Stream(mode, evaluation)}
