"""HOPE as a contribution to state-spaces/s4: a patch against a checkout, which stays as it is, and a text for it.

The files the patch adds, in the host's own style, lie in ``upstream/`` of this distribution under their paths in the
host; ``edits.yaml`` there lists the lines it adds to files that the host has. HOPE is always in it, other kernels by
name.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

import yaml

from hope_ssm.checks import check_choice, nearest

KERNEL = "src/models/sequence/kernels/hope.py"
KERNELS = ("hope", "hope-bands")
_ADDED = ("src", "configs")


def contribution() -> Path:
    """Return the directory with the files to add, the edits and the text of the pull request."""
    return Path(str(resources.files("hope_ssm").joinpath("upstream")))


def check_kernels(names: Iterable[str]) -> tuple[str, ...]:
    """Return the kernels of a contribution, HOPE first; ValueError for a name that is none, with the nearest."""
    asked = {KERNELS[0], *(check_choice("kernel", name, KERNELS) for name in names)}
    return tuple(name for name in KERNELS if name in asked)


def _left_out(file: Path, kernels: Iterable[str]) -> bool:
    """Whether a file is of a kernel that is not in the contribution: it has the kernel's name."""
    return file.stem.replace("_", "-") in set(KERNELS) - set(kernels)


def added_files(kernels: Iterable[str] = KERNELS) -> dict[str, str]:
    """Return the contents of the files to add by their paths in the host."""
    root = contribution()
    files = [file for top in _ADDED for file in (root / top).rglob("*") if file.suffix in (".py", ".yaml")]
    files = [file for file in files if not _left_out(file, kernels)]
    return {file.relative_to(root).as_posix(): file.read_text(encoding="utf-8") for file in sorted(files)}


def kernel_class() -> str:
    """Return the source of the kernel's class alone, for the host's standalone file, which has the imports."""
    return "class " + added_files()[KERNEL].partition("\nclass ")[2]


def edits(kernels: Iterable[str] = KERNELS) -> list[dict[str, str]]:
    """Return what is added to files of the host, in order."""
    listed = yaml.safe_load((contribution() / "edits.yaml").read_text(encoding="utf-8"))
    return [edit for edit in listed if edit.get("kernel", KERNELS[0]) in kernels]


def _edited(text: str, edit: dict[str, str]) -> str:
    """One file with the lines of one edit in it; ValueError where its place cannot be found."""
    lines = text.splitlines(keepends=True)
    anchor = edit.get("before", edit.get("after", ""))
    found = [number for number, line in enumerate(lines) if line.rstrip() == anchor]
    if len(found) != 1:
        raise ValueError(
            f"{edit['file']} of the checkout must have the line {anchor!r} once; got it {len(found)} times."
            f"{nearest(anchor, (line.rstrip() for line in lines))} The contribution was made for commit e757cef."
        )
    place = found[0] + ("after" in edit)
    if "until" in edit:  # on from there to the first line that is this
        place += next(i for i, line in enumerate(lines[place:]) if line.rstrip() == edit["until"])
    inserted = edit["text"].replace("{kernel}", kernel_class().rstrip("\n"))
    return "".join([*lines[:place], inserted, *lines[place:]])


def changes(host: Path, kernels: Iterable[str] = KERNELS) -> dict[str, tuple[str | None, str]]:
    """Return (contents before, or None; contents after) of every file that the contribution touches, by its path.

    Raises:
        FileExistsError: the checkout has the kernel already.
        ValueError: a file has not the line that an edit looks for, once.
    """
    if (host / KERNEL).exists():
        raise FileExistsError(f"the checkout must not have HOPE already; {host / KERNEL} is there.")
    after = added_files(kernels)
    before: dict[str, str | None] = dict.fromkeys(after)
    for edit in edits(kernels):
        path = edit["file"]
        if path not in after:
            file = host / path
            if not file.is_file():
                raise FileNotFoundError(f"the checkout must have {path}; {host} has none.")
            before[path] = after[path] = file.read_text(encoding="utf-8")
        after[path] = _edited(after[path], edit)
    return {path: (before[path], after[path]) for path in sorted(after)}


def patch(host: Path, kernels: Iterable[str] = KERNELS) -> str:
    """Return the contribution as a patch for ``git apply`` in the checkout, which is only read.

    Raises:
        FileExistsError: the checkout has the kernel already.
        ValueError: a file has not the line that an edit looks for, once.
        RuntimeError: git cannot be run.
    """
    with tempfile.TemporaryDirectory() as place:
        for path, sides in changes(host, kernels).items():
            for side, text in zip("ab", sides, strict=True):
                if text is not None:
                    file = Path(place, side, path)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text(text, encoding="utf-8")
        git = _git(Path(place), "diff", "--no-index", "--no-prefix", "--no-color", "--no-ext-diff", "--", "a", "b")
    if git.returncode not in (0, 1) or not git.stdout:
        raise RuntimeError(f"git must be able to compare two directories; got: {git.stderr.strip()}")
    return git.stdout


def applies(host: Path, file: Path) -> str | None:
    """Return None if git can apply the patch in ``file`` to the checkout, else what git says."""
    done = _git(host, "apply", "--check", str(file.resolve()))
    return None if done.returncode == 0 else done.stderr.strip()


def pull_request(kernels: Iterable[str] = KERNELS) -> str:
    """Return the text of the pull request, with the section of each further kernel at its end."""
    texts = [file for file in sorted(contribution().glob("*.md")) if not _left_out(file, kernels)]
    texts.sort(key=lambda file: file.name != "pull_request.md")
    return "\n".join(file.read_text(encoding="utf-8") for file in texts)


def _git(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Neither the user's configuration nor a repository around the directory may change what git writes.
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    try:
        return subprocess.run(
            ["git", *arguments], cwd=directory, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
    except OSError as error:
        raise RuntimeError(f"git must be installed to write a patch; got {error}.") from error
