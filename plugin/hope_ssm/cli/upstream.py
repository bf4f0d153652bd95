"""``hope upstream``: HOPE as a patch and a pull request for state-spaces/s4."""

from __future__ import annotations

import argparse
from pathlib import Path

from hope_ssm.hosts import upstream
from hope_ssm.hosts.environment import commit
from hope_ssm.hosts.state_spaces import HOME, LANDMARKS, find_host


def _checkout(named: str | None) -> Path:
    found = find_host() if named is None else Path(named).expanduser().resolve()
    if found is None or not all((found / mark).is_file() for mark in LANDMARKS):
        raise FileNotFoundError(
            f"the host must be a checkout of state-spaces/s4; got {named or 'none'}. "
            f"Name one by --host DIR or by {HOME}, or start in one."
        )
    return found


def run(arguments: list[str]) -> int:
    """Write the patch, and the text of the pull request beside it; the checkout is only read."""
    parser = argparse.ArgumentParser(
        prog="hope upstream",
        description="Write HOPE as a patch against a checkout of state-spaces/s4, and the text of a pull request.",
    )
    parser.add_argument("--host", metavar="DIR", help=f"the checkout (default: {HOME}, or the working directory)")
    parser.add_argument("--out", metavar="FILE", default="hope.patch", help="the patch (default: hope.patch)")
    parser.add_argument(
        "--kernel", metavar="NAMES", default="hope", help="hope, or hope,hope-bands for both (default: hope)"
    )
    options = parser.parse_args(arguments)
    kernels = upstream.check_kernels(options.kernel.split(","))
    host, out = _checkout(options.host), Path(options.out)
    text = out.with_suffix(".md")
    if text == out:
        raise ValueError(f"out must not end in .md, which is the text beside it; got {str(out)!r}.")
    patch = upstream.patch(host, kernels)
    out.write_text(patch, encoding="utf-8")
    text.write_text(upstream.pull_request(kernels), encoding="utf-8")
    against = commit(host) or "unknown (no git)"
    print(f"{out}: {', '.join(kernels)}, {patch.count('diff --git ')} files, against commit {against}")
    print(f"{text}: the text of the pull request")
    refused = upstream.applies(host, out)
    if refused:
        raise RuntimeError(f"the patch must apply to {host}; git says: {refused}")
    print(f"\ngit -C {host} apply {out.resolve()}")
    return 0
