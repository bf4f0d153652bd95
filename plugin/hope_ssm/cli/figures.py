"""``hope figures [CLAIM …]``: the claims of the paper, measured here and now."""

from __future__ import annotations

import argparse
from pathlib import Path

from hope_ssm.checks import check_choice, check_positive_integer


def run(arguments: list[str]) -> int:
    """Measure the claims; write a picture and numbers of each and a page with tables and verdicts."""
    from hope_ssm.figures import claims

    parser = argparse.ArgumentParser(
        prog="hope figures",
        description=f"The claims of the HOPE paper as experiments: {', '.join(claims.CLAIMS)} (all of them, without a "
        "name). Each ends with a verdict that follows from its numbers.",
    )
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help=f"any of {', '.join(claims.CLAIMS)}")
    parser.add_argument("--out", type=Path, default=Path("figures"), help="where they go (default: figures)")
    parser.add_argument("--seeds", type=int, help="seeds of every experiment, 2 or more (default: its own)")
    options = parser.parse_args(arguments)
    names = [check_choice("CLAIM", name, claims.CLAIMS) for name in options.claims] or list(claims.CLAIMS)
    if options.seeds is not None and check_positive_integer("--seeds", options.seeds) < 2:
        raise ValueError("--seeds must be at least 2 for a standard deviation; got 1.")
    import matplotlib  # noqa: F401 what is absent is said before anything is measured
    import sklearn  # noqa: F401

    options.out.mkdir(parents=True, exist_ok=True)
    parts = []
    for name in names:
        parts.append(claims.run(name, options.seeds, options.out))
        print(parts[-1], flush=True)
    (options.out / "figures.md").write_text("\n".join(parts), encoding="utf-8")
    print(f"Pictures, numbers and this page: {options.out}/")
    return 0
