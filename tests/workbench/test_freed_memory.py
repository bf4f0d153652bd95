"""Memory freed by a step is there for the next one."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource, sys, torch
from hope_ssm.workbench.freed_memory import keep_freed_memory
assert keep_freed_memory() is (sys.argv[1] == "kept"), "what was asked for"
def step():  # 64 MB and 8 MB, above and below the size from which glibc asks the system for every array
    for _ in range(3):
        torch.ones(1 << 24).add_(1), torch.ones(1 << 21).add_(1)
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how, monkeypatch):
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    if how == "given back":
        monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", str(1 << 17))
    done = subprocess.run([sys.executable, "-c", STEPS, how], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_no_page_is_asked_for_twice(monkeypatch):
    assert faults("kept", monkeypatch) < 1000
    assert faults("given back", monkeypatch) > 10_000  # a variable of the user's counts


def test_nothing_is_changed_without_glibc(monkeypatch):
    from hope_ssm.workbench.freed_memory import keep_freed_memory

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert keep_freed_memory() is False
