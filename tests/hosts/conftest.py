"""The hosts of these tests: a stand-in made on the spot, and a real checkout named by the environment.

STATE_SPACES_HOME    a checkout of state-spaces/s4
STATE_SPACES_PYTHON  the interpreter of its environment, with hope-ssm installed (default: the one that runs pytest)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

QUIET = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "HYDRA_FULL_ERROR": "1", "PYTHONWARNINGS": "ignore"}


def run_python(
    python: str,
    arguments: list[str],
    directory: Path,
    path: tuple[Path, ...] = (),
    timeout_s: int = 600,
    **environment: str,
):
    """Run an interpreter in ``directory`` with ``path`` first on sys.path; return the finished process, output as text.

    The environment is this process's own without what would point the child at another host or code.
    """
    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "STATE_SPACES_HOME", "DATA_PATH")}
    joined = os.pathsep.join(str(entry) for entry in path)
    return subprocess.run(
        [python, *arguments],
        cwd=directory,
        env={**inherited, **QUIET, **({"PYTHONPATH": joined} if path else {}), **environment},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


STAND_IN = {
    "src/utils/registry.py": 'layer = {"fftconv": "src.kernels.FFTConv"}\ncallbacks = {"timer": "the host"}\n',
    "src/models/sequence/kernels/__init__.py": "registry = dict(s4d='the host', conv='the host', ema='the host')\n",
    "src/dataloaders/__init__.py": "from . import basic\nfrom .base import SequenceDataset\n",
    "src/dataloaders/base.py": """
        default_data_path = None

        class SequenceDataset:
            registry = {}
            _name_ = None

            def __init_subclass__(cls, **options):
                super().__init_subclass__(**options)
                cls.registry[cls._name_] = cls
        """,
    "src/dataloaders/basic.py": """
        from .base import SequenceDataset

        class CIFAR10(SequenceDataset):
            _name_ = "cifar"
        """,
    "src/tasks/decoders.py": 'registry = {"sequence": None}\nmodel_attrs = {}\ndataset_attrs = {}\n',
    "configs/config.yaml": "name: stand-in\n",
    "main.py": """
        import json, sys
        import hydra
        import src.dataloaders, src.utils.registry

        @hydra.main(config_path="configs", config_name="config", version_base="1.1")
        def main(config):
            import src.models.sequence.kernels as kernels
            import src.tasks.decoders as decoders
            print(json.dumps({
                "config": hydra.utils.instantiate(config, _convert_="all"),
                "kernels": {name: type(entry).__name__ for name, entry in kernels.registry.items()},
                "datasets": sorted(src.dataloaders.SequenceDataset.registry),
                "decoders": sorted(decoders.registry),
                "loaded": [name for name in ("hope_ssm.kernels.hope", "third_party") if name in sys.modules],
            }))

        main()
        """,
}


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """Return a directory with a package that has the host's module names and nothing else of it."""
    root = tmp_path / "stand_in"
    for name, text in STAND_IN.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text).lstrip())
    return root


@pytest.fixture
def python(tmp_path: Path):
    """Return a function that runs this interpreter on arguments in a directory."""

    def run(*arguments: str, directory: Path = tmp_path, path: tuple[Path, ...] = (), **environment: str):
        return run_python(sys.executable, list(arguments), directory, path, **environment)

    return run


# A tiny model on little data, on one CPU.
SMALL = (
    "model.n_layers=1",
    "model.d_model=8",
    "model.layer.d_state=8",
    "loader.batch_size=4",
    "loader.num_workers=0",
    "trainer.accelerator=cpu",
    "trainer.devices=1",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=2",
    "trainer.limit_val_batches=1",
    "wandb=null",
)


@dataclass(frozen=True)
class Host:
    """A checkout of the host and the interpreter of its environment."""

    home: Path
    interpreter: str

    def python(self, *arguments: str, path: tuple[Path, ...] = (), directory: Path | None = None, **environment: str):
        """Run the host's interpreter in its checkout, or elsewhere."""
        return run_python(self.interpreter, list(arguments), directory or self.home, path, **environment)

    def train(self, output: Path, *overrides: str, path: tuple[Path, ...] = (), **environment: str) -> str:
        """Run the host's ``python -m train`` at the smallest size; return what it printed, fail if it fails."""
        done = self.try_train(output, *overrides, path=path, **environment)
        assert done.returncode == 0, f"{' '.join(overrides)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout + done.stderr

    def try_train(self, output: Path, *overrides: str, path: tuple[Path, ...] = (), **environment: str):
        """Run the same and return the finished process."""
        flags = [override for override in overrides if override.startswith("--")]
        where = [f"hydra.run.dir={output}", f"hydra.sweep.dir={output}"]
        rest = [override for override in overrides if override not in flags]
        return self.python("-m", "train", *flags, *SMALL, *where, *rest, path=path, **environment)

    def status(self) -> str:
        """Return what git says has changed in the checkout."""
        command = ["git", "-C", str(self.home), "status", "--porcelain"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="session")
def absent(request: pytest.FixtureRequest):
    """Return a function that skips with a message, or fails with it under ``--require-host``."""
    return pytest.fail if request.config.getoption("--require-host", default=False) else pytest.skip


@pytest.fixture(scope="session")
def host(absent) -> Host:
    """Return the real host, or skip; ``--require-host`` turns the skip into a failure."""
    home = os.environ.get("STATE_SPACES_HOME")
    if not home:
        absent("STATE_SPACES_HOME must name a checkout of state-spaces/s4; it is not set.")
    host = Host(Path(home).resolve(), os.environ.get("STATE_SPACES_PYTHON", sys.executable))
    done = host.python("-c", "import hope_ssm, hydra_plugins.hope_ssm_plugin")
    if done.returncode:
        pytest.fail(f"{host.interpreter} must have hope-ssm installed: {done.stderr.strip().splitlines()[-1]}")
    return host


@pytest.fixture(scope="session")
def cifar(host, tmp_path_factory) -> tuple[Path, Path]:
    """Return a data directory with a tiny CIFAR-10 and a directory for sys.path that lets torchvision accept it."""
    root = tmp_path_factory.mktemp("data")
    code = f"""
        import pathlib, pickle
        import numpy as np
        folder = pathlib.Path({str(root)!r}, "cifar", "cifar-10-batches-py")
        folder.mkdir(parents=True)
        random = np.random.default_rng(0)
        for name in ["test_batch", *(f"data_batch_{{i}}" for i in range(1, 6))]:
            images = random.integers(0, 256, (10, 3072), dtype=np.uint8)
            (folder / name).write_bytes(pickle.dumps({{"data": images, "labels": list(range(10))}}))
        (folder / "batches.meta").write_bytes(pickle.dumps({{"label_names": list("abcdefghij")}}))
        """
    done = host.python("-c", textwrap.dedent(code))
    assert done.returncode == 0, done.stderr
    accept = tmp_path_factory.mktemp("accept")
    (accept / "sitecustomize.py").write_text(
        "import torchvision.datasets.cifar as cifar\ncifar.check_integrity = lambda *arguments, **options: True\n"
    )
    return root, accept


@pytest.fixture(scope="session")
def patched(host, tmp_path_factory) -> Host:
    """Return a copy of the real host with the patch of ``hope upstream`` applied."""
    from hope_ssm.hosts import upstream

    home = tmp_path_factory.mktemp("patched") / "s4"
    left_out = shutil.ignore_patterns(".git", "assets", "notebooks", "data", "outputs", "__pycache__")
    shutil.copytree(host.home, home, ignore=left_out)
    (home / "hope.patch").write_text(upstream.patch(host.home))
    subprocess.run(["git", "apply", "hope.patch"], cwd=home, check=True)
    return Host(home, host.interpreter)
