"""The page on a kernel of one's own: its package, installed as pip would, in a sweep."""

from __future__ import annotations

import os
import re
import subprocess
import sys
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
PROJECT = tomllib.loads(re.sub("^    ", "", re.search(r"^    \[build-system\](.|\n)*?(?=^\S)", PAGE, re.MULTILINE)[0],
                               flags=re.MULTILINE))  # fmt: skip


@pytest.fixture
def installed(tmp_path):
    """The package of the page on a path, with the metadata that an installation writes."""
    (name,) = PROJECT["tool"]["setuptools"]["py-modules"]
    (tmp_path / f"{name}.py").write_text(CODE)
    project = PROJECT["project"]
    info = tmp_path / f"{name}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    ((group, points),) = project["entry-points"].items()
    listed = "\n".join(f"{key} = {value}" for key, value in points.items())
    (info / "entry_points.txt").write_text(f"[{group}]\n{listed}\n")
    return tmp_path


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
def test_a_sweep_picks_it_up(installed):
    environment = {**os.environ, "PYTHONPATH": str(installed)}

    def hope(*arguments):
        code = "import sys; from hope_ssm.cli.main import main; sys.exit(main(sys.argv[1:]))"
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=installed, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert re.search(r"^ema .* moving average .* ema-kernel$", hope("kernels"), re.MULTILINE)
    hope("train", "-m", *TINY, "kernel=ema,hope", "trainer.max_epochs=1", "hydra.sweep.dir=sweep")
    assert re.search(r"^EMA +1 ", hope("report", "sweep"), re.MULTILINE)
