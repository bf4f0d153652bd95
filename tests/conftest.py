"""Options, seeds and threads of the whole suite."""

from __future__ import annotations

import logging
import os
import sys
from random import Random

import numpy as np
import pytest
import setuptools  # noqa: F401  torch's code generator imports it in the midst of a compilation, where that failed once
import torch
from hypothesis import HealthCheck, settings

import reference

pytest_plugins = ["shared_fixtures"]

if not torch.cuda.is_available():  # before anything imports triton, which then runs its kernels in its interpreter
    os.environ.setdefault("TRITON_INTERPRET", "1")

settings.register_profile(
    "suite", derandomize=True, deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption("--require-host", action="store_true", help="fail, not skip, where the real host is absent")
    parser.addoption("--require-slurm", action="store_true", help="fail, not skip, where no Slurm answers")
    parser.addoption("--every-seed", action="store_true", help="random configurations: hundreds, with whole step loops")
    parser.addoption("--error-for-skips", action="store_true", help="fail, not skip, whatever the reason")
    parser.addoption("--device", default="cpu", help="where the tests in tests/devices compute: cpu, or cuda")
    parser.addoption("--in-random-order", type=int, metavar="SEED", help="files, and the tests of each, in any order")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--in-random-order") is not None:
        draw = Random(config.getoption("--in-random-order")).random
        files = {item.path: draw() for item in items}
        items.sort(key=lambda item: (files[item.path], draw()))


def _without_skips(report, config):
    if report.skipped and not hasattr(report, "wasxfail") and config.getoption("--error-for-skips"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome, report.longrepr = "failed", f"no skips under --error-for-skips: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return _without_skips((yield), item.config)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return _without_skips((yield), collector.config)


@pytest.fixture(autouse=True)
def seed():
    """Neither random numbers nor what is logged depend on which tests ran before; every message may be logged again."""
    from hope_ssm import checks

    torch.manual_seed(0)
    np.random.seed(0)
    checks._said.clear()
    logging.getLogger().setLevel(logging.WARNING)  # Hydra, of a hope train in this process, leaves another
    for variable in ("HOPE_FULL_ERROR", "HYDRA_FULL_ERROR"):  # hope train leaves them for the processes it begins
        os.environ.pop(variable, None)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


class Chain:
    """The kernels of the recursion for every n ≤ 128 and L ≤ 2000 at ``periods``: corners of one array."""

    def __init__(self, periods, n, length):
        self.periods = np.array(periods)
        self._responses = reference.chain_responses(self.periods, n, length)

    def kernels(self, h, length):
        """(periods, L)."""
        return np.einsum("k,dkl->dl", h, self._responses[:, : len(h), :length])


@pytest.fixture(scope="session")
def chain():
    return Chain([1e-3, 3e-3, 0.01, 0.1, 0.5, 0.999, 1.0, 1.001, 2.0, 7.0, 10.0], 128, 2000)


@pytest.fixture(scope="session")
def chain32():
    """At periods that float32 holds exactly, out to 1e-4 and 100."""
    periods = np.float32([1e-4, 3e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 1.0, 1.1, 2.0, 10.0, 30.0, 100.0])
    return Chain(periods.astype(np.float64), 128, 2000)


@pytest.fixture(autouse=True)
def closed_figures():
    """No test sees the pictures that another one left open."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


def process_wide():
    """What torch keeps for the whole process, and for all tests to come."""
    return {
        "deterministic": torch.get_deterministic_debug_mode(),
        "benchmark": torch.backends.cudnn.benchmark,
        "dtype": torch.get_default_dtype(),
        "precision of float32 products": torch.get_float32_matmul_precision(),
        "threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
        "anomalies": torch.is_anomaly_enabled(),
        "directory": os.getcwd(),
    }


@pytest.fixture(autouse=True)
def process_as_it_was():
    """No test, nor what it calls, leaves another process to the next."""
    before = process_wide()
    yield
    assert process_wide() == before
