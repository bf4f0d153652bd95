"""``hope doctor``: versions, the host and what it lacks, backends, extras, kernels that fail, traps that apply."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from dataclasses import asdict
from importlib import util
from typing import Any

from hope_ssm import registry, requirements
from hope_ssm.extras import install_line
from hope_ssm.hosts import environment
from hope_ssm.hosts.state_spaces import HOME, find_host
from hope_ssm.ops import backends, native_build

# Beside what the metadata requires: what the host needs, and what makes a difference in it.
DISTRIBUTIONS = ("hope-ssm", "omegaconf", "einops", "torchvision", "wandb", "transformers")
NOT_TO_RUN = ("dev", "docs")


def versions() -> dict[str, dict[str, Any]]:
    """Return for Python and every package that matters what is here, what is needed, by what, and the mend."""
    table: dict[str, dict[str, Any]] = {}
    for row in requirements.requirements():
        if row.extra not in NOT_TO_RUN:
            entry = table.setdefault(row.name, {"here": row.installed, "needed": row.bounds, "by": [], "mend": ""})
            entry["by"].append(row.extra or "base")
            entry["mend"] = entry["mend"] or row.mend
    for name in DISTRIBUTIONS:
        table.setdefault(name, {"here": requirements.version(name), "needed": "", "by": [], "mend": ""})
    return table


def too_old() -> list[str]:
    """Return a sentence for each feature that the installed version of a package does not have."""
    return [
        f"{feature} needs {name}>={least}; here is {requirements.version(name)}"
        for feature, (name, least) in requirements.FEATURES.items()
        if requirements.version(name) and not requirements.at_least(name, least)
    ]


def extras() -> dict[str, list[str]]:
    """Return what each optional extra of this distribution lacks here."""
    lacking: dict[str, list[str]] = {}
    for row in requirements.requirements():
        if row.extra:
            absent = lacking.setdefault(row.extra, [])
            if row.installed is None:
                absent.append(row.name)
    return lacking


def kernels() -> tuple[list[str], dict[str, str]]:
    """Return the names of the kernels that import, and why the others do not."""
    fine, failing = [], {}
    for name, entry in registry.kernels().items():
        try:
            entry.load()
            fine.append(name)
        except Exception as error:
            failing[name] = f"{type(error).__name__}: {error}"
    return fine, failing


def host() -> dict[str, Any] | None:
    """Return the host's place, commit, and what its environment lacks; None without a host."""
    found = find_host()
    if found is None:
        return None
    absent, broken = environment.missing(found)
    return {
        "path": str(found),
        "commit": environment.commit(found),
        "plugin": util.find_spec("hydra_plugins.hope_ssm_plugin") is not None,
        "missing": absent,
        "install": environment.installation(absent),
        "broken": {name: {"error": why, "mend": environment.mend(name)} for name, why in broken.items()},
    }


def report() -> dict[str, Any]:
    """Return everything ``hope doctor`` says."""
    import torch

    cuda = torch.cuda.is_available()
    fine, failing = kernels()
    return {
        "versions": versions(),
        "too_old": too_old(),
        "cuda": torch.cuda.get_device_name() if cuda else None,
        "backends": {
            "names": list(backends.NAMES),
            "auto": {device: backends.automatic(torch.device(device)) for device in ("cpu", "cuda")},
        },
        "convolution": native_build.choice(),
        "extras": extras(),
        "kernels": {"importable": fine, "failing": failing, "clashes": registry.clashes()},
        "host": host(),
        "traps": [asdict(trap) for trap in environment.traps(cuda)],
    }


def _host_lines(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        named = os.environ.get(HOME)
        where = f"{named}, which {HOME} names, holds none" if named else f"set {HOME} to a checkout, or start in one"
        return [f"host (state-spaces/s4)\n  not found: {where}"]
    lines = [f"host (state-spaces/s4)\n  {found['path']}, commit {found['commit'] or 'unknown (no git)'}"]
    lines.append(f"  Hydra plug-in     {'installed' if found['plugin'] else 'not importable: reinstall hope-ssm'}")
    if found["missing"]:
        lines.append(f"  not installed     {', '.join(found['missing'])}")
        lines += [f"    {line}" for line in found["install"]]
    for name, row in found["broken"].items():
        lines.append(f"  fails to import   {name}: {row['error']}\n    {row['mend']}")
    if not found["missing"] and not found["broken"]:
        lines.append("  everything that training imports is there")
    return lines


def text(found: dict[str, Any]) -> str:
    """Return the report as plain text."""
    lines = [f"{'versions':<26}{'here':<16}needed"]
    for name, row in found["versions"].items():
        by = "" if not row["by"] or "base" in row["by"] else f" by {', '.join(row['by'])}"
        lines.append(f"  {name:<24}{row['here'] or '–':<16}{row['needed']}{by}".rstrip())
        lines += [f"    {row['mend']}"] if row["mend"] else []
    lines.append(f"  {'GPU':<24}{found['cuda'] or '–'}")
    lines += [f"  {sentence}" for sentence in found["too_old"]]
    auto = ", ".join(f"{name} on {device}" for device, name in found["backends"]["auto"].items())
    lines += ["\nbackends", f"  {', '.join(found['backends']['names'])}", f"  auto takes {auto}"]
    lines.append(f"  convolution: auto takes on a CPU {found['convolution']}; on a GPU plain (docs/speed.md)")
    lines.append("\nextras")
    for extra, absent in found["extras"].items():
        state = f"lacks {', '.join(absent)}: {install_line(extra)}" if absent else "complete"
        lines.append(f"  {extra:<12}{state}")
    lines += ["\nkernels", f"  importable  {', '.join(found['kernels']['importable'])}"]
    lines += [f"  failing     {name}: {why}" for name, why in found["kernels"]["failing"].items()]
    lines += [f"  clash       {sentence}" for sentence in found["kernels"]["clashes"]]
    lines += ["", *_host_lines(found["host"]), "\ntraps of the host that apply here"]
    lines += [f"  - {row['trap']}:\n    {row['mend']}" for row in found["traps"]]
    return "\n".join(lines)


def run(arguments: list[str]) -> int:
    """Print the report; the status is 1 if a kernel fails to import or the base has a package too old, otherwise 0."""
    parser = argparse.ArgumentParser(
        prog="hope doctor", description="Print what is installed, and what is missing or does not work."
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    with contextlib.redirect_stdout(sys.stderr):  # what other packages print when they are imported
        found = report()
    print(json.dumps(found, indent=2) if options.json else text(found))
    unfit = [name for name, row in found["versions"].items() if row["mend"] and "base" in row["by"]]
    return 1 if found["kernels"]["failing"] or unfit else 0
