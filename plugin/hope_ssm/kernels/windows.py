"""Windows that suit the length of the sequences, also where only the data set says how long they are."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hope_ssm.checks import check_positive_integer, log_once
from hope_ssm.kernels.base import TRANSFORMS, SequenceKernel
from hope_ssm.kernels.initialization import sampling_periods, window_periods
from hope_ssm.ops.transforms import transformed

_logger = logging.getLogger("hope_ssm.kernels")
RECOMMENDED_RATES = MappingProxyType({"dt": 0.001})


def longest_sequence(horizon: int | Sequence[int] | None, l_max: int | None) -> int | None:
    """Steps of the longest sequence: the horizon; l_max where there is none, or one that lists several axes (S4ND)."""
    if isinstance(horizon, Sequence) and not isinstance(horizon, str):
        if l_max is None:
            raise ValueError(
                "horizon must be one whole number where l_max does not say which axis the kernel is for; got "
                f"{list(horizon)}. Set l_max to the sizes of the axes too, or horizon to the longest of them."
            )
        horizon = None
    return check_positive_integer("l_max", l_max) if horizon is None and l_max is not None else horizon


@torch.compiler.assume_constant_result  # it logs, which torch.compile does not trace
def _warn_of_some_hundred_steps(name: str, dt_min: float, dt_max: float) -> None:
    log_once(
        _logger, logging.WARNING,
        f"{name}: neither horizon nor l_max says how long the sequences are, so the windows are those for some hundred "
        f"steps: Δt from {dt_min:g} to {dt_max:g}. Set horizon to the length of the longest one.",
    )  # fmt: skip


class WindowedKernel(SequenceKernel):
    """Delays of at most n/Δt steps, the window:  Δt between n/(16 T) and 2n/T  where sequences have T steps.

    Where neither horizon nor l_max says T, Δt is that of some hundred steps until ``set_length`` says it: the workbench
    calls it with the longest sequence of the data set, ``HopeLayer`` with the first ones that it is trained on. Where
    nothing does, the first sequences bring one warning.
    """

    n: int
    free_windows: bool  # neither dt_min nor dt_max was given

    def __init__(self, **shared: Any) -> None:
        super().__init__(**shared)
        self.awaits_length = self._unsaid = False
        self._begun: dict[str, Tensor] = {}  # what the length rules, as it began; empty where it is said
        self._longest: float = 0  # of the sequences that the windows were compared with; infinite after a warning

    def starts(self, horizon: int | None) -> dict[str, Tensor]:
        """Return the raw parameters, by name, whose initial values follow from the length of the sequences."""
        raise NotImplementedError

    def await_length(self, steps: int | None, dt_min: float | None, dt_max: float | None, others: bool = False) -> None:
        """Note what was said of the windows.

        Args:
            steps: of the longest sequence, None if nothing says it.
            dt_min: as it was given; None: it follows from the steps.
            dt_max: likewise.
            others: whether the kernel has other windows, which always follow from the steps.
        """
        self.free_windows = dt_min is None and dt_max is None
        self._unsaid = steps is None and (dt_min is None or dt_max is None or others)
        self.awaits_length = steps is None and (self.free_windows or others)

    def register_all(self, starts: dict[str, Tensor]) -> None:
        """Register every one of these parameters."""
        for name, start in starts.items():
            self.register(name, start)
        if self.awaits_length:
            self._begun = {name: getattr(self, name).detach().clone() for name in starts}

    @torch.no_grad()
    def set_length(self, length: int) -> None:
        """Draw the windows anew for sequences of ``length`` steps, if neither horizon nor l_max has said it."""
        if self.awaits_length:
            self._end_waiting()
            self._longest = 0
            for name, start in self.starts(length).items():
                getattr(self, name).copy_(start)

    def _end_waiting(self) -> None:
        """Nothing is awaited from now on."""
        self.awaits_length = self._unsaid = False
        self._begun = {}

    def suit_first(self, length: int) -> None:
        """Let the windows suit the first training sequences, of ``length`` steps, if nothing else has said a length.

        Windows that are no longer as they began, trained or set by hand, stay. In a process group they suit the longest
        of all processes, and are those of its first process: every process must make its first call with sequences.
        """
        if not self.awaits_length:
            return
        begun = {name: (getattr(self, name).detach(), start) for name, start in self._begun.items()}
        moved = any(value.is_meta or not torch.equal(value, start.to(value)) for value, start in begun.values())
        together = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        if together:  # others have their first values from the first process
            device = next(iter(begun.values()))[0].device
            longest, of_first = torch.tensor(length, device=device), torch.tensor(int(moved), device=device)
            dist.all_reduce(longest, dist.ReduceOp.MAX)
            dist.broadcast(of_first, 0)
            length, moved = int(longest), bool(of_first)
        if moved:
            self.awaits_length, self._begun = False, {}
            return
        self.set_length(length)
        for value, _ in begun.values() if together else ():
            dist.broadcast(value, 0)
        self._say(f"{self.name}: the windows suit {length} steps, as the first sequences have; horizon says it before.")

    def heard(self, length: int, rate: float = 1.0) -> None:
        """Warn once: that nothing said how long sequences are, or that one of ``length`` steps outlasts all windows."""
        if torch.compiler.is_compiling() and self._unsaid and self.verbose:
            _warn_of_some_hundred_steps(self.name, self.dt_min, self.dt_max)
        recorded = torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._len_torch_dispatch_stack() > 0
        if not recorded and not transformed() and not isinstance(length, torch.SymInt) and length > self._longest:
            self._longest = length
            if self._unsaid:
                self._longest = math.inf
                if self.verbose:
                    _warn_of_some_hundred_steps(self.name, self.dt_min, self.dt_max)
            else:
                self._compare(length, rate)

    @torch.no_grad()
    def _compare(self, length: int, rate: float) -> None:
        window = self.longest_window()
        if window is not None and length * rate > window * (1 + 1e-3):
            self._longest = math.inf
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
        return None if raw is None or raw.is_meta else self.n / float(self.transformed(raw.detach()).min())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if any(name.startswith(prefix) for name in state_dict):
            self._end_waiting()  # the parameters say all
        super()._load_from_state_dict(state_dict, prefix, *args)
