"""Windows that suit the length of the sequences, also where only the first batch says how long they are."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from hope_ssm.checks import check_positive_integer
from hope_ssm.kernels.base import TRANSFORMS, SequenceKernel
from hope_ssm.kernels.initialization import sampling_periods, window_periods
from hope_ssm.ops.transforms import transformed

RECOMMENDED_RATES = MappingProxyType({"dt": 0.001})


def longest_sequence(horizon: int | Sequence[int] | None, l_max: int | None) -> int | None:
    """Steps of the longest sequence: the horizon, or l_max where there is none for this kernel alone."""
    if isinstance(horizon, Sequence) and not isinstance(horizon, str):
        horizon = None
    return check_positive_integer("l_max", l_max) if horizon is None and l_max is not None else horizon


@contextmanager
def _numbers_of(seed: int) -> Iterator[None]:
    """The same random numbers every time, on the CPU; those of the process go on afterwards where they were."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        yield


def _near(value: Tensor, drawn: Tensor) -> bool:
    """Whether a tensor is still what was drawn, but for the rounding of its precision."""
    rounding = max(2 * torch.finfo(value.dtype).eps, 1e-6)  # float32 parameters may have become float64 ones
    return torch.allclose(value.cpu().double(), drawn.double(), rtol=rounding, atol=rounding)


class WindowedKernel(SequenceKernel):
    """Delays of at most n/Δt steps, the window:  Δt between n/(16 T) and 2n/T  where sequences have T steps.

    Where nothing says T, the first sequences do. Until then Δt is that of some hundred steps. The same random numbers
    then give the Δt for T; the buffer ``windows`` holds T (0 before) and the seed of these numbers, so that a
    checkpoint and every replica of a model know both. Parameters that something else has changed meanwhile stay as they
    are, and so does a model that is compiled, exported or traced before it has seen a sequence.
    """

    windows: Tensor
    n: int
    free_windows: bool  # neither dt_min nor dt_max was given

    def __init__(self, **shared: Any) -> None:
        super().__init__(**shared)
        self.awaits_length = False
        self._longest = 0  # of the sequences that the windows were compared with

    def starts(self, horizon: int | None) -> dict[str, Tensor]:
        """Return the raw parameters, by name, whose initial values follow from the length of the sequences."""
        raise NotImplementedError

    def register_starts(self, steps: int | None, *, waits: bool) -> None:
        """Register the parameters of ``starts`` for sequences of so many steps, or wait for the first sequences."""
        if not waits:
            for name, start in self.starts(steps).items():
                self.register(name, start)
            return
        seed = int(torch.randint(2**31, (1,), device="cpu"))
        with _numbers_of(seed):
            drawn = self.starts(None)
        for name, start in drawn.items():
            self.register(name, start.to(torch.get_default_device()))
        self.awaits_length = True
        self.register_buffer("windows", torch.tensor([0, seed]))

    @torch.no_grad()
    def set_length(self, length: int | None) -> None:
        """Let the windows suit sequences of ``length`` steps, if nothing has said it yet; None: leave them for good."""
        if not self.awaits_length:
            return
        self.awaits_length = False
        seed = int(self.windows[1])
        with _numbers_of(seed):
            before = self.starts(None)
        there = {name: getattr(self, name) for name in before}
        own = all(name in self._buffers or isinstance(value, Parameter) for name, value in there.items())
        if length is None or not own or not all(_near(value, before[name]) for name, value in there.items()):
            return
        with _numbers_of(seed):
            after = self.starts(length)
        for name, value in there.items():
            value.copy_(after[name])
        self.windows[0] = length
        self._say(
            f"{self.name}: neither horizon nor l_max said how long the sequences are; the windows follow the first "
            f"ones, of {length} steps."
        )

    def heard(self, length: int | None, rate: float = 1.0) -> None:
        """Note that there are sequences of ``length`` steps, None for single steps, before anything is computed."""
        recorded = torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._len_torch_dispatch_stack() > 0
        if recorded or transformed() or isinstance(length, torch.SymInt):
            if self.awaits_length:  # what is recorded or differentiated is the model as it is, and must stay so
                self.awaits_length = False
        elif length is None:
            self.set_length(None)
        elif length > self._longest:
            self.set_length(length)
            self._longest = length
            self._compare(length, rate)

    @torch.no_grad()
    def _compare(self, length: int, rate: float) -> None:
        window = self.longest_window()
        if window is not None and length * rate > window * (1 + 1e-3):
            self._say(
                f"{self.name}: a sequence of {length} steps is longer than every window, the longest of "
                f"{window / rate:.0f} steps, so its beginning is forgotten at its end. Set horizon to the length of "
                "the longest sequence, or dt_min lower.",
                logging.WARNING,
            )

    def start_of_delays(self, count: int, horizon: int | None) -> dict[str, Tensor]:
        """Return the raw Δt of ``count`` systems for sequences of ``horizon`` steps, or from dt_min to dt_max."""
        if self.free_windows:
            self.dt_min, self.dt_max = window_periods(self.n, horizon)
        dt = sampling_periods(count, self.dt_min, self.dt_max, deterministic=self.deterministic)
        return {"raw_sampling_period": TRANSFORMS[self.dt_transform][1](dt)}

    def longest_window(self) -> float | None:
        """Return max n/Δt in steps, None where no feature has such a window."""
        raw = getattr(self, "raw_sampling_period", None)
        return None if raw is None else self.n / float(self.transformed(raw).min())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        key = f"{prefix}windows"
        if "windows" not in self._buffers:
            state_dict.pop(key, None)  # the length is known here; the parameters say all
        elif key in state_dict:
            self.awaits_length = self.awaits_length and not int(state_dict[key][0])
        elif any(name.startswith(prefix) for name in state_dict):
            state_dict[key], self.awaits_length = self.windows, False
        super()._load_from_state_dict(state_dict, prefix, *args)
