"""Which extra brings which package: the one place that says how to install what is absent."""

from __future__ import annotations

# Import name of a package that the base does not bring → (its name for pip, the extra that brings it).
EXTRAS = {
    "hydra": ("hydra-core", "workbench"),
    "omegaconf": ("hydra-core", "workbench"),
    "pytorch_lightning": ("pytorch-lightning", "workbench"),
    "pydantic": ("pydantic", "workbench"),
    "filelock": ("filelock", "workbench"),
    "rich": ("rich", "workbench"),
    "sklearn": ("scikit-learn", "workbench"),
    "matplotlib": ("matplotlib", "workbench"),
    "mlxtend": ("mlxtend", "data"),
    "seglearn": ("seglearn", "data"),
    "PIL": ("pillow", "data"),
    "pooch": ("pooch", "data"),
    "onnx": ("onnx", "export"),
    "onnxruntime": ("onnxruntime", "export"),
    "onnxscript": ("onnxscript", "export"),
    "pandas": ("pandas", "tables"),
    "pyarrow": ("pyarrow", "tables"),
    "pykeops": ("pykeops", "keops"),
    "triton": ("triton", "triton"),
}


def install_line(extra: str) -> str:
    """Return the command that adds an extra to an installation; pip keeps the hope-ssm that is there."""
    return f"pip install 'hope-ssm[{extra}]'"


def absent(needing: str, package: str) -> str:
    """Return the sentence that says which package is needed and absent, and what installs it.

    Args:
        needing: what needs it, with the verb: "the digits need".
        package: the package by its import name, a key of ``EXTRAS``.
    """
    name, extra = EXTRAS[package]
    return f"{needing} {name}, which is not installed: {install_line(extra)}."


def explained(error: BaseException, needing: str) -> str | None:
    """Return ``absent``'s sentence for an import that failed for want of an extra; None for any other failure."""
    package = (getattr(error, "name", None) or "").split(".")[0]
    return absent(needing, package) if isinstance(error, ModuleNotFoundError) and package in EXTRAS else None
