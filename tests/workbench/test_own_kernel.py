"""The page on a kernel of one's own: its package, installed as pip would, in a sweep."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import torch

from hope_ssm.layers.fftconv import FFTConvolution
from tiny import TINY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PAGE = (Path(__file__).parents[2] / "docs" / "kernel.md").read_text(encoding="utf-8")
CODE = re.search(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[1]
LINES = re.search(r"^    \[build-system\](.|\n)*?(?=^\S)", PAGE, re.MULTILINE)[0]
TOML = re.sub("^    ", "", LINES, flags=re.MULTILINE)
PROJECT = tomllib.loads(TOML)


@pytest.fixture
def installed(tmp_path):
    """The Python of a new environment into which pip has installed the package of the page, over this suite's own."""
    pytest.importorskip("pip")
    project = tmp_path / "project"
    project.mkdir()
    (name,) = PROJECT["tool"]["setuptools"]["py-modules"]
    (project / f"{name}.py").write_text(CODE)
    (project / "pyproject.toml").write_text(TOML)
    venv.create(tmp_path / "environment")
    python = tmp_path / "environment" / "bin" / "python"
    asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    ours = sysconfig.get_path("purelib")
    Path(packages, "of_the_suite.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    subprocess.run(
        [python, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", project], check=True
    )
    return python


def test_the_kernel_is_one_system_in_all_its_ways(monkeypatch):
    names = {}
    exec(CODE, names)
    monkeypatch.setattr("hope_ssm.registry.get", lambda name: names[name])
    torch.manual_seed(0)
    layer = FFTConvolution(3, "ExponentialAverage", channels=2)
    x = torch.randn(2, 20, 3)
    whole, _ = layer(x)
    y, state = layer(x[:, :15], state=layer.default_state(2))
    torch.testing.assert_close(y, whole[:, :15])
    rest, after = layer(x[:, 15:], state=state)
    torch.testing.assert_close(rest, whole[:, 15:])
    for t in range(15, 20):
        y, state = layer.step(x[:, t], state)
        torch.testing.assert_close(y, whole[:, t])
    torch.testing.assert_close(state, after)


@pytest.mark.slow
def test_a_sweep_picks_it_up(installed, tmp_path):
    def hope(*arguments):
        code = "import sys; from hope_ssm.cli.main import main; sys.exit(main(sys.argv[1:]))"
        done = subprocess.run([installed, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert re.search(r"^average .* moving average .* average-kernel$", hope("kernels"), re.MULTILINE)
    hope("train", "-m", *TINY, "kernel=average,hope", "trainer.max_epochs=1", "hydra.sweep.dir=sweep")
    assert re.search(r"^Average +1 ", hope("report", "sweep"), re.MULTILINE)
