"""Peak memory of a stretch of work."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Context manager: ``mebibytes`` is the peak, allocated by torch on a GPU, resident in the process on a CPU.

    Where the peak of a process cannot be reset (not Linux), it is that of the process's life so far.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.mebibytes = 0.0

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif _RESET.exists():
            with contextlib.suppress(OSError):
                _RESET.write_text("5")
        return self

    def __exit__(self, *_: Any) -> None:
        self.mebibytes = self.read()

    def read(self) -> float:
        """Return the peak so far."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        return _peak_resident()


def _peak_resident() -> float:
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)
