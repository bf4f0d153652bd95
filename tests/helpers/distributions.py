"""Metadata of distributions, as an installation writes them."""

from __future__ import annotations

import textwrap
from pathlib import Path


def add_distribution(directory: Path, name: str, entry_points: str) -> Path:
    """Write the metadata of an installed distribution with entry points; return its directory."""
    info = directory / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[state_spaces.kernels]\n{textwrap.dedent(entry_points).strip()}\n")
    return directory
