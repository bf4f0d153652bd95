"""HopeClassifier and HopeRegressor: scikit-learn's own checks, and sequences of any lengths."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest

import hope_ssm

sklearn = pytest.importorskip("sklearn")
SMALL = {"d_model": 8, "n_layers": 1, "d_state": 8, "lr": 0.02, "random_state": 0, "device": "cpu"}


def waves(count, seed=0, features=1):
    """Sine waves of 30 to 60 steps, with a level far from 0: the class is the frequency, the number the amplitude."""
    random = np.random.default_rng(seed)
    xs, classes, amplitudes = [], np.array(["slow", "fast"])[np.arange(count) % 2], random.uniform(1, 3, count)
    for name, amplitude in zip(classes, amplitudes, strict=True):
        t = np.arange(random.integers(30, 60))
        wave = 50 + amplitude * np.sin((0.3 if name == "slow" else 1.5) * t + random.uniform(0, 6))
        xs.append(wave if features == 1 else np.stack([wave, random.normal(size=len(t))], 1))
    return xs, classes, amplitudes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("HopeClassifier", {"d_state": 4, "max_epochs": 6}),
        ("HopeRegressor", {"d_model": 16, "max_epochs": 12}),  # with less its R² is not above the 0.5 that is asked for
    ],
)
def test_scikit_learn_s_checks(name, sizes):
    """All that there are. A table of numbers is taken as sequences of one feature, so each of them applies."""
    from sklearn.exceptions import SkipTestWarning
    from sklearn.utils.estimator_checks import check_estimator

    options = {**SMALL, "lr": 0.05, "batch_size": 16, "patience": None, **sizes}
    with pytest.warns(SkipTestWarning, match="SCIPY_ARRAY_API is not set"):  # the one that needs another environment
        results = check_estimator(getattr(hope_ssm, name)(**options), on_fail=None, expected_failed_checks={})
    assert not [result for result in results if result["status"] not in ("passed", "skipped")]
    assert [result["check_name"] for result in results if result["status"] == "skipped"] == ["check_array_api_input"]


@pytest.mark.slow
def test_sequences_of_different_lengths_are_classified():
    from sklearn.base import clone

    xs, classes, _ = waves(40)
    estimator = hope_ssm.HopeClassifier(**SMALL, max_epochs=12)
    assert estimator.fit(xs[:30], classes[:30]) is estimator
    assert list(estimator.classes_) == ["fast", "slow"]
    assert estimator.score(xs[30:], classes[30:]) >= 0.9
    shares = estimator.predict_proba(xs[30:])
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-12)
    np.testing.assert_allclose(estimator.predict_proba(xs[33:34]), shares[3:4], rtol=1e-9)  # padding is not seen
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(estimator)).predict_proba(xs[30:]), shares)
    again = clone(estimator).fit(xs[:30], classes[:30])
    np.testing.assert_array_equal(again.predict_proba(xs[30:]), shares)
    assert again.get_params() == estimator.get_params()
    assert {"val/loss", "train/loss", "epoch"} <= set(estimator.history_[-1])


def test_early_stopping_and_the_overrides_of_the_workbench():
    xs, classes, _ = waves(12)
    estimator = hope_ssm.HopeClassifier(
        **SMALL, max_epochs=40, patience=1, overrides=("+callbacks.early_stopping.min_delta=9",)
    )
    estimator.fit(xs, classes)
    assert len(estimator.history_) == 2
    with pytest.raises(ValueError, match=r"kernel must be one of .*; got .hop.\."):
        hope_ssm.HopeClassifier(kernel="hop").fit(xs, classes)


@pytest.mark.slow
def test_numbers_of_a_three_dimensional_array():
    random = np.random.default_rng(0)
    X = random.normal(size=(60, 12, 2)) * [1, 100]
    y = np.stack([3 * X[:, -1, 0] + 40, X[:, -1, 1] - 7], 1)
    estimator = hope_ssm.HopeRegressor(**SMALL, max_epochs=20, patience=None).fit(X[:50], y[:50])
    assert estimator.n_features_in_ == 2
    assert estimator.predict(X[50:]).shape == (10, 2)
    assert estimator.score(X[50:], y[50:]) > 0.7
    assert estimator.set_params(max_epochs=1).fit(X[:9], y[:9, 0]).predict(X[50:]).shape == (10,)


@pytest.mark.slow
def test_in_cross_val_score():
    from sklearn.model_selection import cross_val_score

    xs, classes, _ = waves(24, features=2)
    scores = cross_val_score(hope_ssm.HopeClassifier(**SMALL, max_epochs=10), xs, classes, cv=2)
    assert scores.shape == (2,)
    assert scores.min() > 0.7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda xs: [*xs[:-1], np.ones((3, 2))], "one number of features per step; got 1 and 2"),
        (lambda xs: [*xs[:-1], np.array([1.0, np.nan])], "Input X contains NaN"),
        (lambda xs: [*xs[:-1], np.ones(0)], r"0 sample\(s\)"),
        (lambda xs: xs[:-1], "inconsistent numbers of samples"),
    ],
)
def test_sequences_that_are_refused(change, message):
    xs, classes, _ = waves(6)
    with pytest.raises(ValueError, match=message):
        hope_ssm.HopeClassifier(**SMALL).fit(change(xs), classes)


def test_other_features_than_in_fit():
    xs, classes, _ = waves(6)
    fitted = hope_ssm.HopeClassifier(**SMALL, max_epochs=1).fit(xs, classes)
    with pytest.raises(ValueError, match="all sequences must have 1 features per step; got 2"):
        fitted.predict(np.zeros((3, 20, 2)))


def test_scikit_learn_is_asked_for_where_it_is_used(monkeypatch):
    monkeypatch.delitem(sys.modules, "hope_ssm.workbench.estimators")
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(
        ImportError, match=r"must have scikit-learn 1\.6 or newer; .*pip install 'hope-ssm\[workbench\]'"
    ):
        hope_ssm.HopeClassifier  # noqa: B018
