"""A run directory of an earlier version: loaded, evaluated, reported and continued by this one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.evaluation import evaluate, load
from hope_ssm.workbench.reports import report
from hope_ssm.workbench.run_directory import RunDirectory
from hope_ssm.workbench.training import train

RUN = Path(__file__).parent / "data" / "run"


@pytest.fixture
def earlier(tmp_path):
    return Path(shutil.copytree(RUN, tmp_path / "run"))


@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_evaluation_gives_the_metrics_it_wrote(earlier, checkpoint):
    written, found = RunDirectory(earlier).results, evaluate(earlier, checkpoint)
    assert found["test/loss"] == pytest.approx(written["test/loss"], rel=1e-4)
    assert found["test/accuracy"] == pytest.approx(written["test/accuracy"], abs=0.021)  # one digit of 50


def test_it_is_loaded_and_reported(earlier):
    directory = RunDirectory(earlier)
    assert directory.state == "finished"
    assert sum(parameter.numel() for parameter in load(earlier).parameters()) == directory.info["parameters"]
    report.write(earlier, earlier.parent / "report")
    assert "| 8 | 362 | 72 |" in (earlier.parent / "report" / "report.md").read_text()  # states and parameters


def test_it_is_continued(earlier):
    overrides = [*RunDirectory(earlier).info["overrides"], "scheduler.T_max=1"]  # the configuration stays the run's
    done = train(compose([*overrides, "trainer.max_epochs=2", "train.ckpt=auto"]), earlier)
    first, second = RunDirectory(earlier).epochs
    assert first == RunDirectory(RUN).epochs[0]
    assert second["step"] == 2 * first["step"]
    assert done.metrics["test/loss"] > 0
