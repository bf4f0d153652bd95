"""``hope kernels``: the registry as a table."""

from __future__ import annotations

import argparse

from hope_ssm import registry
from hope_ssm.hosts.environment import host_kernels
from hope_ssm.hosts.state_spaces import find_host

HEADINGS = ("name", "aliases", "family", "parameters per system", "recurrent", "distribution")


def run(arguments: list[str]) -> int:
    """Print one row per kernel."""
    parser = argparse.ArgumentParser(prog="hope kernels", description="Print every kernel installed here.")
    parser.parse_args(arguments)
    rows: list[tuple[str, ...]] = [HEADINGS]
    for entry in registry.kernels().values():
        entry = entry.described()
        recurrent = {True: "yes", False: "no", None: "–"}[entry.recurrent]
        aliases = ", ".join(entry.aliases) or "–"
        rows.append((entry.name, aliases, entry.family, entry.parameters, recurrent, entry.distribution))
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    rows.insert(1, tuple("-" * width for width in widths))
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for sentence in registry.clashes():
        print(f"\n{sentence[0].upper()}{sentence[1:]}")
    host = find_host()
    own = host_kernels(host) if host else []
    used = [f"{name} ({entry.distribution})" for name, entry in registry.names().items() if name in own]
    if used:
        print(f"\nIn {host} its own kernels of these names are used: {', '.join(used)}.")
    print("\nn is d_state, the number of real states; parameters are real numbers, before sharing by n_ssm.")
    return 0
