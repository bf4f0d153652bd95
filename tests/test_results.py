"""docs/results.md against the stored runs, and the few lines of statistics behind its tables."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import scipy.stats

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def protocol():
    spec = importlib.util.spec_from_file_location("protocol", ROOT / "tools" / "protocol.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["protocol"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["protocol"]


def test_the_page_says_what_the_stored_runs_say(protocol):
    assert protocol.main(["check"]) == 0


@pytest.fixture
def stored(protocol, tmp_path, monkeypatch):
    """A whole sweep of two rows, hope far better; and the page made from it."""
    monkeypatch.setattr(protocol, "STORE", tmp_path)
    monkeypatch.setattr(protocol, "PAGE", tmp_path / "results.md")
    rows = {name: protocol.KERNELS[name] for name in ("hope", "s4d", "lru")}
    monkeypatch.setattr(protocol, "TASKS", {"digits": protocol.Task("", rows, tests=359)})
    level = {"hope": 0.97, "s4d": 0.6, "lru": 0.96}
    common = {"epochs": "4", "steps": "100", "epochs_to_90": "2", "kernel_parameters": "4160", "commit": "abc"}
    for stage, seeds in (("choice", protocol.CHOOSING), ("table", protocol.TABLE)):
        for row, (_, settings) in rows.items():
            for place, one in enumerate(settings if stage == "choice" else [[*settings][-1]]):
                for seed in seeds:
                    value = level[row] + 0.001 * place + 0.002 * seed % 7
                    protocol.append("digits", common | {
                        "stage": stage, "row": row, "settings": one, "seed": str(seed), "validation": f"{value:.5f}",
                        "test": f"{value:.5f}", "curve": f"0.1 0.8 {value:.4f} {value:.4f}",
                    })  # fmt: skip
    protocol.PAGE.write_text("# Results\n<!-- results of digits -->\n<!-- end of digits -->\n")
    return protocol


def test_a_page_that_drifted_is_refused(stored, capsys):
    assert stored.main(["check"]) == 1
    assert stored.main(["page"]) == 0
    assert stored.main(["check"]) == 0
    page = stored.PAGE.read_text()
    assert "s4d | global, hope's | 4,160 | 60." in page
    assert "worse" in page
    assert "no difference shown" in page
    stored.PAGE.write_text(page.replace("60.", "61.", 1))
    assert stored.main(["check"]) == 1
    assert "differs" in capsys.readouterr().out


def test_choices_come_from_all_their_seeds(stored):
    task, records = stored.TASKS["digits"], stored.stored("digits")
    assert stored.chosen(task, records, "hope") == "global, common"
    missing = [r for r in records if not (r["row"] == "hope" and r["stage"] == "choice" and r["seed"] == "101")]
    assert stored.chosen(task, missing, "hope") is None
    assert stored.results(task, missing)[1] == ["hope"]
    assert next(stored.lacking("digits"), None) is None


def test_holm(protocol):
    """The example of the definition, and never less than the raw value nor out of order."""
    assert protocol.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert protocol.holm([0.5, 0.9]) == [1.0, 1.0]


def test_intervals_are_those_of_student_with_the_sampling_error_as_floor(protocol):
    values = [0.91, 0.95, 0.93, 0.96, 0.92]
    mean, half, p = protocol.interval(values, 0.0)
    low, high = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert p == pytest.approx(scipy.stats.ttest_1samp(values, 0).pvalue)
    assert protocol.interval([0.93] * 5, 0.0004)[1] == pytest.approx(scipy.stats.t.ppf(0.975, 4) * 0.02 / 5**0.5)


def test_a_short_filter_sees_nothing_of_the_digit():
    """Two layers of 64 taps reach 126 steps back, and the outputs that are read begin 161 steps after the digit."""
    import torch

    from hope_ssm.layers.fftconv import FFTConvolution

    layers = [FFTConvolution(4, "conv", l_max=64, verbose=False) for _ in range(2)]
    noise = torch.rand(1, 192, 4)
    read = []
    for digit in (torch.zeros(1, 64, 4), torch.rand(1, 64, 4)):
        x = torch.cat([digit, noise], dim=1)
        for layer in layers:
            x = torch.nn.functional.gelu(layer(x)[0])
        read.append(x[:, -32:])
    torch.testing.assert_close(*read, rtol=0, atol=1e-5)
