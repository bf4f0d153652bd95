"""hope figures: the experiments, their verdicts from made numbers, and the files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from hope_ssm.cli.main import main
from hope_ssm.figures import memory, perturbation, rank, training
from hope_ssm.hankel import h_infinity_norm
from hope_ssm.reporting import timing


def test_the_command_writes_picture_numbers_and_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rank, "SIZES", (8, 16, 32))
    assert main(["figures", "rank", "--seeds", "2", "--out", str(tmp_path)]) == 0
    assert 10_000 < (tmp_path / "rank.png").stat().st_size < 150_000
    numbers = json.loads((tmp_path / "rank.json").read_text())
    assert numbers["seeds"] == 2
    assert np.array(numbers["ranks"]["h"]).shape == (2, 3)
    page = (tmp_path / "figures.md").read_text()
    assert numbers["verdict"] in page
    assert page.strip() in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["ranks"],
            "CLAIM must be one of 'rank', 'training', 'perturbation', 'memory'; got 'ranks'. Did you mean 'rank'",
        ),
        (["rank", "--seeds", "1"], "--seeds must be at least 2 for a standard deviation; got 1"),
        (["rank", "--seeds", "0"], "--seeds must be a whole number of at least 1; got 0"),
    ],
)
def test_bad_requests(arguments, message, capsys):
    assert main(["figures", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_random_poles_have_their_distribution():
    torch.manual_seed(0)
    poles, B, C = rank.random_modes(20_000, 2.0)
    assert (poles.abs() < 1).all()
    assert float((poles.abs() > 0.5).double().mean()) == pytest.approx(0.5**2, abs=0.02)
    for part in (poles, B, C):
        torch.testing.assert_close(part[10_000:], part[:10_000].conj(), rtol=0, atol=0)


def test_perturbed_systems_are_normalized():
    torch.manual_seed(0)
    for real_part in (0.5, 1e-3):
        poles, B, C = perturbation.diagonal_system(real_part)
        assert float(h_infinity_norm(perturbation._system(poles, B, C), 1e-6)) == pytest.approx(1, rel=2e-3)
        assert float(B.norm()) == pytest.approx(float(C.norm()))
        np.testing.assert_allclose(poles.abs(), np.exp(-0.1 * real_part), rtol=1e-12)


def test_verdicts_follow_the_numbers():
    sizes = (16, 64, 256)
    low, full = [[4, 8, 16]] * 2, [[15, 60, 240]] * 2
    result = {"sizes": sizes, "ranks": {"h": full, "1": low}}
    assert rank.verdict(result)[0]
    assert "β = 0.50 at p = 1" in rank.verdict(result)[1]
    assert not rank.verdict({"sizes": sizes, "ranks": {"h": low, "1": low}})[0]
    assert not rank.verdict({"sizes": sizes, "ranks": {"h": full, "1": full}})[0]

    kept = {name: {"before": [60.0, 58], "after": [30.0, 40], "accuracy": [0.5, 0.6]} for name in training.ROWS}
    assert not training.verdict({"rows": kept})[0]
    kept["hope"] = {**kept["hope"], "after": [60.0, 58]}
    assert training.verdict({"rows": kept})[0]
    kept["s4d inv"] = {**kept["s4d inv"], "after": [59.0, 58]}
    confirmed, why = training.verdict({"rows": kept})
    assert not confirmed
    assert "4 of 5 rows of S4D lose" in why

    margins = [0.1, 0.01, 0.001]
    moved = {name: [[1e-5, 1e-4, 1e-3]] for name in "ABC"}
    bounds = {name: [[2e-5, 2e-4, 2e-3]] for name in "ABC"}
    result = {"margins": margins, "moved": moved, "bounds": bounds, "h": [2e-6], "bound_of_h": [5e-6]}
    assert perturbation.verdict(result)[0]
    assert not perturbation.verdict({**result, "h": [6e-6]})[0]
    assert not perturbation.verdict({**result, "bounds": {**bounds, "B": [[2e-5, 2e-5, 2e-3]]}})[0]
    assert not perturbation.verdict({**result, "moved": {**moved, "A": [[1e-5, 1e-5, 1e-5]]}})[0]


@pytest.mark.parametrize("rounding", [-1e-12, 0, 1e-12])
def test_no_verdict_hangs_on_rounding(monkeypatch, rounding):
    """Fits that are exact in the mathematics differ in the last digits from processor to processor."""
    sizes, full = (16, 64, 256), [[15, 60, 240]] * 2
    fitted = rank.exponents
    monkeypatch.setattr(rank, "exponents", lambda *points: fitted(*points) * (1 + rounding))
    assert not rank.verdict({"sizes": sizes, "ranks": {"h": full, "1": full}})[0]

    at_the_threshold = {"before": [60.0, 63.0, 57.0], "after": [57.0 * (1 + rounding), 59.85, 54.15], "accuracy": [0.5]}
    lost, kept = training.verdict({"rows": dict.fromkeys(training.ROWS, at_the_threshold)})
    assert not lost
    assert "0 of 5 rows of S4D lose more than 5 %, hope does not" in kept


def test_memory_of_one_seed():
    result = memory.measure([0])
    assert memory.verdict(result)[0]
    envelope = np.array(result["envelopes"]["s4d lin"][0])
    assert envelope[400] / envelope[100] == pytest.approx(np.exp(-0.05 * 300), rel=0.5)  # Re λ = -1/2
    lengthened = {**result["envelopes"], "s4d lin": result["envelopes"]["hope"]}
    assert not memory.verdict({**result, "envelopes": lengthened})[0]


@pytest.mark.slow
def test_training_records_ranks(monkeypatch):
    monkeypatch.setattr(training, "ROWS", {name: training.ROWS[name] for name in ("hope", "s4d random")})
    small = ["model.d_model=4", "model.layer.d_state=8", "dataset.l_noise=8", "trainer.max_epochs=1"]
    small += ["trainer.limit_train_batches=1", "trainer.limit_val_batches=1", "+trainer.limit_test_batches=1"]
    result = training.measure([0], small)
    for row in result["rows"].values():
        assert 1 <= row["before"][0] <= 8
        assert 1 <= row["after"][0] <= 8
    assert len(training.rows(result)) == 3


def test_exponents():
    sizes = [2, 4, 8]
    values = np.array([[3 * x**0.5 for x in sizes], [x**2 for x in sizes]])
    np.testing.assert_allclose(timing.exponents(sizes, values), [0.5, 2])
