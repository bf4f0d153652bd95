"""Requests for memory: what the system has written down of them."""

from __future__ import annotations

import mmap
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hope_ssm.ops.fresh_memory import HUGE_PAGE, LEAST_BYTES, on_huge_pages

SMAPS = Path("/proc/self/smaps")
huge_pages = pytest.mark.skipif(
    not (SMAPS.exists() and Path("/sys/kernel/mm/transparent_hugepage").exists()), reason="this system has none"
)


def asked_for(address: int) -> bool:
    """Whether huge pages were asked for at an address: "hg" among the flags of its mapping."""
    inside = False
    for line in SMAPS.read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(found[1], 16) <= address < int(found[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return "hg" in line.split()
    raise AssertionError("no mapping holds the address")


@huge_pages
def test_large_tensors_are_asked_for_on_huge_pages():
    """Of a view, all of its storage; the numbers are free to be written.

    The memory is the system's own, not an allocator's: that one may hand out what was asked for before.
    """
    whole = torch.frombuffer(mmap.mmap(-1, 4 * LEAST_BYTES), dtype=torch.uint8).view(2, 2 * LEAST_BYTES)
    middle = whole.data_ptr() + whole.numel() // 2
    assert not asked_for(middle)
    view = whole[1]
    assert on_huge_pages(view) is view
    assert asked_for(middle)
    assert asked_for(whole.data_ptr() + HUGE_PAGE)
    assert whole.fill_(3).sum(dtype=torch.int64) == 3 * whole.numel()


def test_small_tensors_and_those_without_memory_stay_as_they_are():
    for x in (torch.zeros(5), torch.empty(0)):
        assert on_huge_pages(x) is x


KEPT = """
import sys
import torch
from hope_ssm.ops.fresh_memory import keep_small_blocks

def address():
    x = torch.empty(8 << 20, dtype=torch.uint8)
    return x.data_ptr()

def mapped(where):
    for line in open("/proc/self/maps"):
        begin, end = (int(part, 16) for part in line.split()[0].split("-"))
        if begin <= where < end:
            return True
    return False

if "keep" in sys.argv:
    keep_small_blocks()
print(mapped(address()))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this system has another C library")
def test_small_blocks_that_are_freed_stay():
    """The pages of 8 MB that were freed belong to the process afterwards only if they are kept."""

    usual = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))}

    def run(*words):
        command = [sys.executable, "-c", KEPT, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=usual).stdout.strip()

    assert (run(), run("keep")) == ("False", "True")
