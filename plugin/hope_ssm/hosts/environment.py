"""What the host needs from its environment, and the known traps of unmodified state-spaces/s4 in a newer one."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from hope_ssm import requirements
from hope_ssm.reporting.machine import git_state

# Where the host's training starts, and what it imports by name while it builds a model.
_ROOTS = ("train.py", "src/models/sequence/backbones/model.py", "src/models/sequence/modules/s4block.py")
_DISTRIBUTIONS = {
    "PIL": "pillow",
    "hydra": "'hydra-core<1.4'",
    "pytorch_lightning": "pytorch-lightning",
    "sklearn": "scikit-learn",
    "wandb": "'wandb<0.29'",
    "yaml": "pyyaml",
}
# Those whose compiled libraries must fit torch, so that a plain pip install may not do.
_PARTICULAR = {
    "torchvision": "install the build that matches torch; where there is none, --no-deps torchvision==0.16.2 imports",
    "torchaudio": "install the build that matches torch, or put a stand-in module on sys.path if no audio is used",
    "torchtext": "its libraries no longer load with a current torch: put a stand-in module on sys.path",
}


@dataclass(frozen=True)
class Trap:
    """Something that goes wrong in the host in this environment, and what to do."""

    trap: str
    mend: str


def commit(host: Path) -> str | None:
    """Return the checkout's commit, short, with ``+`` if files are modified; None if git does not know it."""
    state = git_state(host)
    return None if state is None else state[0][:7] + "+" * state[1]


def _file(host: Path, module: str) -> Path | None:
    path = host.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _imported(file: Path, host: Path) -> set[str]:
    """Return the modules that a file imports unconditionally; for ``from a import b`` both ``a`` and ``a.b``."""
    found: set[str] = set()
    inside = file.relative_to(host).with_suffix("").parts
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(inside[: -node.level]) if node.level else ""
            base = ".".join(part for part in (start, node.module) if part)
            found.update([base, *(f"{base}.{alias.name}" for alias in node.names)])
    return found


def host_kernels(host: Path) -> list[str]:
    """Return the names in the host's own table of kernels, from its source."""
    file = _file(host, "src.models.sequence.kernels")
    tables = [] if file is None else ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    keys = [key for node in tables if isinstance(node, ast.Dict) for key in node.keys]
    return [key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]


def needed(host: Path) -> list[str]:
    """Return the top-level packages, beyond the standard library, that training in the host imports."""
    queue = [host / name for name in _ROOTS if (host / name).is_file()]
    seen, outside = set(queue), set()
    while queue:
        for name in _imported(queue.pop(), host):
            top = name.split(".")[0]
            if top not in ("src", "models"):
                outside.add(top)
            elif (file := _file(host, name)) is not None and file not in seen:
                seen.add(file)
                queue.append(file)
    return sorted(outside - set(sys.stdlib_module_names))


def missing(host: Path) -> tuple[list[str], dict[str, str]]:
    """Return the packages the host needs that are absent, and those that are there but fail to import, with why."""
    absent, broken = [], {}
    for name in needed(host):
        try:
            importlib.import_module(name)
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and error.name == name:
                absent.append(name)
            else:
                broken[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return absent, broken


def installation(absent: list[str]) -> list[str]:
    """Return what to do about absent packages: one pip command, and a line for each that it would not do for."""
    plain = [_DISTRIBUTIONS.get(name, name) for name in absent if name not in _PARTICULAR]
    command = ["pip install " + " ".join(plain)] if plain else []
    return command + [f"{name}: {_PARTICULAR[name]}" for name in absent if name in _PARTICULAR]


def mend(broken: str) -> str:
    """Return what to do about a package that is there and fails to import."""
    return _PARTICULAR.get(broken, f"reinstall {_DISTRIBUTIONS.get(broken, broken)}")


def traps(cuda: bool) -> list[Trap]:
    """Return the traps that apply to running the host in this environment."""
    lightning = requirements.version("pytorch-lightning") or ""
    table = [
        (
            requirements.at_least("hydra-core", "1.4"),
            f"hydra-core {requirements.version('hydra-core')} rejects the host's hydra.main without version_base",
            "pip install 'hydra-core<1.4'",
        ),
        (
            bool(lightning)
            and not requirements.at_least("pytorch-lightning", "2.4")
            and importlib.util.find_spec("pkg_resources") is None,
            f"pytorch-lightning {lightning} imports pkg_resources, which setuptools no longer has",
            "pip install 'setuptools<81', or 'pytorch-lightning>=2.5.3'",
        ),
        (
            bool(lightning)
            and not requirements.at_least("pytorch-lightning", "2.5.3")
            and requirements.at_least("rich", "14.1"),
            f"pytorch-lightning {lightning} fails with rich {requirements.version('rich')}",
            "pip install 'rich<14.1', or 'pytorch-lightning>=2.5.3'",
        ),
        (
            requirements.at_least("pytorch-lightning", "2.6")
            and os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD") != "1",
            f"pytorch-lightning {lightning} refuses the host's own checkpoints: they hold its configuration",
            "set TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 for train.ckpt=, train.pretrained_model_path= and "
            "load_from_checkpoint of a file you trust",
        ),
        (
            requirements.version("pykeops") is not None and not cuda,
            "pykeops without a GPU stops the host's own kernels s4, nplr, s4d and diag (KeyError: 'nvrtc')",
            "use +model.layer.backend=naive for them; hope is not affected",
        ),
        (
            requirements.at_least("wandb", "0.29"),
            f"wandb {requirements.version('wandb')} dropped an option that the host passes",
            "add wandb=null, or pip install 'wandb<0.29'",
        ),
        (
            requirements.version("wandb") is not None and not requirements.at_least("wandb", "0.29"),
            "the host retries a failing wandb login for ever",
            "add wandb=null unless you log there",
        ),
        (
            requirements.version("transformers") is None,
            "the host's schedulers constant, constant_warmup, linear_warmup and cosine_warmup need transformers",
            "pip install transformers, or scheduler=plateau, cosine, step or multistep",
        ),
        (not cuda, "the host trains on a GPU by default", "add trainer.accelerator=cpu trainer.devices=1"),
        (
            True,
            "the second job of a plain --multirun stops in the host (resolver 'eval' is already registered)",
            "add +hydra/callbacks=clear_eval",
        ),
        (
            True,
            "the host's synthetic pipelines (delay, copying, adding, reconstruct) have no test set",
            "add +train.remove_test_loader_in_eval=true",
        ),
        (
            not cuda,
            "the host's layers convolve all features at once, which is slow on a CPU",
            "add ++model.layer.layer=grouped_fftconv, which gives the same outputs with any kernel (model/layer=hope "
            "has it)",
        ),
    ]
    for entry in sys.path:
        other = Path(entry or ".") / "src" / "__init__.py"
        table.append(
            (other.is_file(), f"{other} hides the host's namespace package src", "take its directory off sys.path")
        )
    return [Trap(trap, mend) for applies, trap, mend in table if applies]
