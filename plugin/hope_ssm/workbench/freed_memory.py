"""Memory that a step has freed stays with the process for the next one."""

from __future__ import annotations

import ctypes
import os
import platform

# glibc's names for its parameters, see its manual under "Malloc Tunable Parameters".
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed, in this process from now on, and return whether it does.

    A training step on a CPU allocates and frees the same hundreds of megabytes every time. As it stands, glibc gives
    arrays above 32 MB, and the top of its heap, back to the system at once; every page of them is then asked for and
    zeroed again in the next step, which can take longer than the arithmetic. In return the process holds what it has
    had between the steps too, and its peak is higher, by 45 % where docs/speed.md measures it.

    Nothing is changed on systems without glibc, nor where the user has set one of MALLOC_TRIM_THRESHOLD_,
    MALLOC_MMAP_THRESHOLD_ and GLIBC_TUNABLES.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _VARIABLES):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_THRESHOLD, 1 << 30) and mallopt(_TRIM_THRESHOLD, (1 << 31) - 1))
