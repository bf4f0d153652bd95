"""Delay, copying, adding and tones against their definitions, written out a second time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hope_ssm.datasets.adding import Adding
from hope_ssm.datasets.copying import Copying
from hope_ssm.datasets.delay import Delay
from hope_ssm.datasets.tones import FREQUENCIES, PAIRS, Tones
from hope_ssm.workbench.data import builtin

BAND = {"l_seq": 200, "dt": 0.001, "freq": 100.0}


@pytest.mark.parametrize(("l_seq", "n_lag", "l_lag"), [(64, 1, 16), (65, 3, 20), (7, 2, None), (64, 4, 16)])
def test_delay_repeats_the_input(l_seq, n_lag, l_lag):
    for x, y in (Delay(4, 0, "val", l_seq=l_seq, n_lag=n_lag, l_lag=l_lag, dt=0.001, freq=400.0)[i] for i in range(4)):
        assert x.shape == (l_seq, 1)
        assert y.shape == (l_seq, n_lag)
        assert x.dtype == y.dtype == torch.float32
        assert x[0] == 0
        lag = l_lag or l_seq // n_lag
        for i in range(n_lag):
            for t in range(l_seq):
                s = t - (i + 1) * lag
                assert y[t, i] == (x[s, 0] if s >= 0 else 0)


def test_delay_is_white_up_to_its_frequency():
    """20 coefficients of equal power, nothing beyond, a root mean square of 1/2 (5 σ of the estimates)."""
    data = Delay(1000, 0, "test", **BAND)
    x = torch.stack([data[i][0][:, 0] for i in range(1000)]).double()
    s = x - x.mean(1, keepdim=True)
    power = torch.fft.rfft(s).abs().square().mean(0) / 200**2
    # Each of 20 frequencies has E|c|²/L² = (1/4) / (2 · 20), with the relative deviation of an exponential variable
    expected = torch.full((20,), 0.25 / 40, dtype=torch.float64)
    torch.testing.assert_close(power[1:21], expected, rtol=5 / math.sqrt(1000), atol=0)
    assert power[21:].max() < 1e-12
    assert s.square().mean().sqrt() == pytest.approx(0.5, rel=5 / math.sqrt(2 * 20 * 1000))


def test_the_lowest_frequency_leaves_a_signal():
    x, _ = Delay(1, 0, "test", l_seq=201, l_lag=3, dt=0.1, freq=1 / 20.1)[0]
    assert x.abs().max() > 0


@pytest.mark.parametrize("variable", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_copying_asks_for_what_it_showed(variable, reverse):
    data = Copying(200, 0, "val", l_noise=13, l_memorize=4, n_tokens=6, variable=variable, reverse=reverse)
    places, tokens = set(), set()
    for x, y in (data[i] for i in range(200)):
        assert (x.shape, y.shape, x.dtype, y.dtype) == ((21,), (4,), torch.int64, torch.int64)
        assert (x[-4:] == 5).all(), "questions"
        shown = x[:-4].nonzero().flatten()
        assert x[shown].tolist() == (y.tolist()[::-1] if reverse else y.tolist())
        places.add(tuple(shown.tolist()))
        tokens |= set(y.tolist())
    assert tokens == {1, 2, 3, 4}
    assert places == {(0, 1, 2, 3)} if not variable else len(places) > 100


def test_copying_with_a_lag_repeats_every_token():
    x, y = Copying(1, 0, "val", l_noise=13, l_memorize=4, n_tokens=6, lag=True)[0]
    assert x.shape == y.shape == (13,)
    assert y[:4].tolist() == [0] * 4
    assert torch.equal(y[4:], x[:-4])
    assert set(x.tolist()) <= {1, 2, 3, 4}


def test_copying_one_hot_is_the_same_sample():
    options = {"l_noise": 5, "l_memorize": 3, "n_tokens": 7}
    tokens, answers = Copying(2, 0, "val", **options)[1]
    vectors, same = Copying(2, 0, "val", one_hot=True, **options)[1]
    assert torch.equal(vectors.argmax(-1), tokens)
    assert vectors.sum() == 11
    assert vectors.dtype == torch.float32
    assert torch.equal(answers, same)


@pytest.mark.parametrize("length", [2, 3, 9, 100])
def test_adding_marks_one_number_in_each_half(length):
    data = Adding(300, 0, "train", True, l_max=length)
    marks = []
    for x, y in (data[i] for i in range(300)):
        assert x.shape == (length, 2)
        assert y.shape == (1,)
        first, second = x[:, 1].nonzero().flatten().tolist()
        assert first < length // 2 <= second
        assert y == x[first, 0] + x[second, 0]
        assert 0 <= x[:, 0].min() <= x[:, 0].max() < 1
        marks.append((first, second))
    halves = [set(column) for column in zip(*marks, strict=True)]
    if length <= 9:
        assert halves == [set(range(length // 2)), set(range(length // 2, length))]


def test_always_one_has_the_error_it_should():
    """Var(u + v) = 1/6; the variance of its square error is 7/180 (of the sum of two uniforms), so 5 σ."""
    data = Adding(4000, 1, "test", l_max=5)
    errors = np.array([(data[i][1].item() - 1) ** 2 for i in range(4000)])
    assert errors.mean() == pytest.approx(1 / 6, abs=5 * math.sqrt(7 / 180 / 4000))


def test_tones_sound_at_their_two_frequencies_and_stop():
    """Least squares on the ten waves of the five frequencies finds the pair, each with an amplitude of 1."""
    assert pytest.approx([0.05, 0.132957, 0.353553, 0.940151, 2.5], rel=1e-5) == FREQUENCIES
    data, seen = Tones(200, 0, "val", l_seq=300, l_tone=200, noise=0.01), set()
    angles = np.outer(np.arange(200), FREQUENCIES)
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    for x, y in (data[i] for i in range(200)):
        assert (x.shape, x.dtype, type(y)) == ((300, 1), torch.float32, int)
        sine, cosine = np.linalg.lstsq(waves, x[:200, 0].double().numpy(), rcond=None)[0].reshape(2, 5)
        amplitudes = np.hypot(sine, cosine)
        assert tuple(np.flatnonzero(amplitudes > 0.5)) == PAIRS[y]
        np.testing.assert_allclose(amplitudes[list(PAIRS[y])], 1, atol=0.02)
        assert x[200:].std() == pytest.approx(0.01, rel=0.4)
        seen.add(y)
    assert seen == set(range(10))


SMALL = {
    "delay": (builtin.delay, {"l_seq": 32, "l_lag": 8, "freq": 300.0, "n_train": 40, "n_eval": 11}),
    "copying": (builtin.copying, {"l_noise": 9, "n_train": 40, "n_eval": 11}),
    "adding": (builtin.adding, {"l_max": 16, "n_samples": 51, "val_split": 0.2}),
    "tones": (builtin.tones, {"l_seq": 20, "l_tone": 9, "n_train": 40, "n_eval": 11}),
}


@pytest.mark.parametrize("name", SMALL)
def test_splits_share_no_sample_and_follow_the_seed(name):
    make, options = SMALL[name]
    splits, again, other = make(**options), make(**options), make(**options, seed=1)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [40, 11, 11]
    rows = {}
    for part in ("train", "val", "test"):
        data = getattr(splits, part)
        data.set_epoch(0)
        for x, _ in data:
            rows.setdefault(tuple(x.flatten().tolist()), set()).add(part)
    assert len(rows) == 62
    for data in (splits.val, splits.test):
        twin, stranger = (getattr(s, data.split) for s in (again, other))
        assert torch.equal(data[3][0], twin[3][0])
        assert not torch.equal(data[3][0], stranger[3][0])


def test_training_samples_are_new_in_every_epoch_unless_static():
    for name, static in [(name, static) for name in ("delay", "copying", "tones") for static in (False, True)]:
        make, options = SMALL[name]
        data = make(**options, static=static).train
        data.set_epoch(0)
        first = data[0][0]
        data.set_epoch(1)
        assert torch.equal(first, data[0][0]) == static
    train = builtin.adding(**SMALL["adding"][1]).train
    assert torch.equal(train[0][0], train[0][0]), "adding is a fixed set, as in the host"


def test_sizes_that_the_model_needs():
    delay = builtin.delay(l_seq=32, n_lag=3, freq=300.0)
    assert (delay.d_input, delay.d_output, delay.l_output, delay.n_tokens) == (1, 3, None, None)
    copying = builtin.copying(l_noise=9, l_memorize=4, n_tokens=6)
    assert (copying.d_input, copying.d_output, copying.l_output, copying.n_tokens) == (6, 6, 4, 6)
    assert builtin.copying(l_noise=9, l_memorize=4, lag=True).l_output == 9
    adding = builtin.adding(l_max=16)
    assert (len(adding.train), len(adding.val), adding.d_input, adding.d_output) == (45000, 5000, 2, 1)
    assert adding.l_output == 0


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        ("delay", {"freq": 501.0}, ValueError, r"freq must be from 1/\(l_seq·dt\) = .* = 500; got 501.0"),
        ("delay", {"freq": 0.5}, ValueError, r"freq must be from .* = 0.976562 to"),
        ("delay", {"l_lag": 600, "n_lag": 2}, ValueError, "n_lag·l_lag must be at most l_seq=1024.* got 2·600"),
        ("delay", {"l_seq": 2}, ValueError, "l_seq must be at least 3; got 2"),
        ("delay", {"l_seq": 2.5}, TypeError, "l_seq must be a whole number"),
        ("delay", {"dt": 0}, ValueError, "dt must be a finite number above 0; got 0"),
        ("delay", {"static": "no"}, TypeError, "static must be true or false; got 'no'"),
        ("delay", {"n_train": 0}, ValueError, "n_train must be a whole number of at least 1; got 0"),
        ("copying", {"n_tokens": 2}, ValueError, "n_tokens must be at least 3.*; got 2"),
        ("copying", {"lag": True, "reverse": True}, ValueError, "lag must stand alone"),
        ("copying", {"l_memorize": 0}, ValueError, "l_memorize must be a whole number of at least 1; got 0"),
        ("tones", {"l_tone": 600}, ValueError, "l_tone must be at most l_seq=512; got 600"),
        ("tones", {"noise": 0}, ValueError, "noise must be a finite number above 0; got 0"),
        ("adding", {"l_max": 1}, ValueError, "l_max must be at least 2, one step in each half; got 1"),
        (
            "adding",
            {"val_split": 0},
            ValueError,
            "val_split must leave training and validation samples of 50000; got 0",
        ),
    ],
)
def test_bad_options(make, options, error, message):
    with pytest.raises(error, match=message):
        getattr(builtin, make)(**options)
