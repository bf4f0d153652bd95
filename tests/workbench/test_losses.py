"""Losses and metrics against sums over the steps that count, written out in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hope_ssm.workbench.losses import LOSSES, METRICS, steps_of, weight

B, L, V = 3, 5, 12
LENGTHS = torch.tensor([5, 2, 4])


def log_softmax(row):
    return row - row.max() - math.log(np.exp(row - row.max()).sum())


def softplus(v):
    return max(v, 0) + math.log1p(math.exp(-abs(v)))


# Of one step: prediction (V,), target a class, or numbers (V,)
OF_CLASSES = {
    "cross_entropy": lambda p, y: -log_softmax(p)[y],
    "bpb": lambda p, y: -log_softmax(p)[y] / math.log(2),
    "accuracy": lambda p, y: float(p.argmax() == y),
    "accuracy@3": lambda p, y: float(y in np.argsort(-p)[:3]),
    "accuracy@5": lambda p, y: float(y in np.argsort(-p)[:5]),
    "accuracy@10": lambda p, y: float(y in np.argsort(-p)[:10]),
}
OF_NUMBERS = {
    "mse": lambda p, y: np.mean((p - y) ** 2),
    "mae": lambda p, y: np.mean(np.abs(p - y)),
    "binary_cross_entropy": lambda p, y: np.mean([softplus(a) - a * b for a, b in zip(p, y, strict=True)]),
    "binary_accuracy": lambda p, y: np.mean((p >= 0) == (y > 0.5)),
}


def test_every_name_is_tested():
    assert set(METRICS) == set(OF_CLASSES) | set(OF_NUMBERS)
    assert set(LOSSES) == {"cross_entropy", "binary_cross_entropy", "mse", "mae"}


def expected(measure, prediction, target, lengths):
    steps = [(p, y) for p, y in zip(prediction, target, strict=True)]
    if prediction.ndim == 3:
        lengths = [L] * B if lengths is None else lengths.tolist()
        steps = [(p[t], y[t]) for p, y, length in zip(prediction, target, lengths, strict=True) for t in range(length)]
    return np.mean([measure(p.numpy(), y.numpy()) for p, y in steps])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(B,), (B, L)])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("name", [*OF_CLASSES, *OF_NUMBERS])
def test_a_mean_over_what_counts(name, shape, lengths, dtype):
    prediction = torch.randn(*shape, V, dtype=dtype)
    classes = name in OF_CLASSES
    target = torch.randint(V, shape) if classes else torch.rand(*shape, V, dtype=dtype)
    if name.startswith("binary"):
        target = target.round()
    lengths = lengths if len(shape) == 2 else None
    if lengths is not None:
        for row, answer, length in zip(prediction, target, lengths, strict=True):
            row[length:] = math.nan
            answer[length:] = 10**6
    value = METRICS[name](prediction, target, lengths)
    measure = (OF_CLASSES | OF_NUMBERS)[name]
    eps = torch.finfo(torch.float32 if "accuracy" in name else dtype).eps  # shares are float32
    assert value.item() == pytest.approx(expected(measure, prediction, target, lengths), rel=100 * eps)


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_one_number_needs_no_axis_of_its_own(name):
    """And is not broadcast: (B, 1) against (B,) would be B² differences."""
    prediction, target = torch.randn(B, 1), torch.rand(B).round()
    assert METRICS[name](prediction, target) == METRICS[name](prediction, target.unsqueeze(-1))


def test_more_places_than_classes():
    assert METRICS["accuracy@10"](torch.randn(B, 4), torch.tensor([0, 3, 1])) == 1


def test_padding_has_no_gradient():
    prediction = torch.randn(B, L, V, requires_grad=True)
    LOSSES["cross_entropy"](prediction, torch.randint(V, (B, L)), LENGTHS).backward()
    valid = torch.arange(L) < LENGTHS[:, None]
    assert (prediction.grad.abs().sum(-1) > 0).equal(valid)


def test_which_lengths_say_what_counts():
    x = torch.zeros(B, L, 2)
    assert steps_of(x, torch.zeros(B, L, V), LENGTHS) is LENGTHS
    assert steps_of(x, torch.zeros(B, 2, V), LENGTHS) is None, "the last two steps of each are all its own"
    assert steps_of(x, torch.zeros(B, L), LENGTHS) is None, "L numbers per sequence are not L steps"
    assert weight(torch.zeros(B, L, V), LENGTHS) == 11
    assert weight(torch.zeros(B, V), None) == 3
