"""C++ of this package, compiled for the processor at hand when it is first needed, and kept for the next process.

The library has a plain C interface, so that neither torch's headers nor Python's are needed: a compiler is done in
about three seconds, and ctypes, which lets other threads work meanwhile, calls it.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

from hope_ssm.checks import log_once

SOURCE = Path(__file__).with_name("native_convolution.cpp")
FLAGS = ("-O3", "-std=gnu++17", "-fPIC", "-shared", "-pthread")  # gnu: with products and sums in one instruction
# By what torch says of the processor, which ATEN_CPU_CAPABILITY can lower: bytes of a vector, flags.
VECTORS = {"AVX512": (64, ("-mavx512f", "-mavx512dq", "-mavx512vl", "-mfma")), "AVX2": (32, ("-mavx2", "-mfma"))}
OTHERS: tuple[int, tuple[str, ...]] = (16, ())  # SSE2, NEON: what every processor of the kind has
COMPILERS = ("c++", "g++", "clang++")
SECONDS = 120

_logger = logging.getLogger("hope_ssm.ops")


def vector_bytes() -> int:
    """Bytes of one of the processor's vectors: 16, 32 or 64."""
    return _vectors()[0]


def load() -> ctypes.CDLL:
    """Return the library, compiled first where this machine has none yet.

    Raises:
        RuntimeError: there is no compiler, or it fails; the sentence says which.
    """
    library, reason = _library(_vectors())
    if library is None:
        raise RuntimeError(
            f"convolution='native' needs a C++ compiler that makes a library for this machine; {reason}. Install one "
            "(apt install g++, or conda install cxx-compiler), name it in the variable CXX, or take convolution='auto'."
        )
    return library


@torch.compiler.assume_constant_result
def available() -> bool:
    """Whether ``load`` returns. What ``"auto"`` takes on a CPU is logged once."""
    log_once(_logger, logging.INFO, f"convolution='auto' takes on a CPU {choice()}.")
    return _library(_vectors())[0] is not None


def choice() -> str:
    """What ``"auto"`` takes on a CPU, in words: with the reason where it is not the library."""
    library, reason = _library(_vectors())
    if library is None:
        return f"grouped or whole, by the size, because native has no library: {reason}"
    return f"native, in C++ for vectors of {vector_bytes()} bytes"


def _vectors() -> tuple[int, tuple[str, ...]]:
    return VECTORS.get(torch.backends.cpu.get_cpu_capability(), OTHERS)


@functools.cache
def _library(vectors: tuple[int, tuple[str, ...]]) -> tuple[ctypes.CDLL | None, str]:
    """The library, or None and why there is none."""
    options = (*FLAGS, *vectors[1], f"-DVECTOR_BYTES={vectors[0]}")
    system = platform.machine(), platform.system(), platform.libc_ver()
    key = hashlib.sha256(SOURCE.read_bytes() + repr((options, system)).encode())
    name = f"native_convolution-{key.hexdigest()[:16]}.so"
    try:
        try:
            return _loaded(_cache(), name, options), ""
        except OSError:  # cannot be written, or allows no libraries: once more in a folder of this process
            with tempfile.TemporaryDirectory(prefix="hope_ssm-", ignore_cleanup_errors=True) as folder:
                return _loaded(Path(folder), name, options), ""
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        return None, str(error)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "hope_ssm")


def _loaded(folder: Path, name: str, options: tuple[str, ...]) -> ctypes.CDLL:
    """The library; a file that is none goes, so that the next process makes it anew."""
    path = _built(folder, name, options)
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _built(folder: Path, name: str, options: tuple[str, ...]) -> Path:
    """The file of the library; one that is made appears under its name when it is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if not path.is_file():
        handle, unfinished = tempfile.mkstemp(suffix=".so", dir=folder)
        os.close(handle)
        try:
            _compile(Path(unfinished), options)
            os.replace(unfinished, path)
        finally:
            Path(unfinished).unlink(missing_ok=True)
    return path


def _compile(path: Path, options: tuple[str, ...]) -> None:
    wanted = shlex.split(os.environ.get("CXX", ""))  # may have arguments, as "ccache g++"
    names = wanted[:1] or COMPILERS
    compiler = next(filter(None, map(shutil.which, names)), None)
    if compiler is None:
        raise RuntimeError(f"none of {', '.join(names)} is on the PATH")
    command = [compiler, *wanted[1:], *options, str(SOURCE), "-o", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise RuntimeError(f"{compiler} failed with status {done.returncode} ({said[0] if said else 'no message'})")
    _logger.info("compiled the long convolution for this processor: %s", path)
