"""Bad input: one sentence with what was expected, what came and the mend; never a run that starts wrong."""

from __future__ import annotations

import logging
import sys

import pytest
import torch

from hope_ssm import (
    HopeKernel,
    checks,
    convolution_kernel,
    hankel_matrix,
    hankel_singular_values,
    transfer_function,
)
from hope_ssm.datasets.digits import digits
from hope_ssm.kernels import initialization
from hope_ssm.ops import backends
from messages import WHOLE, exactly

sampled = pytest.mark.parametrize("function", [transfer_function, convolution_kernel])
of_markov_parameters = pytest.mark.parametrize(
    "function",
    [lambda h: transfer_function(h, 1.0, 4), lambda h: convolution_kernel(h, 1.0, 4), hankel_matrix,
     hankel_singular_values],
    ids=["transfer_function", "convolution_kernel", "hankel_matrix", "hankel_singular_values"],
)  # fmt: skip


# The public functions


@of_markov_parameters
@pytest.mark.parametrize(
    ("h", "error", "message"),
    [
        ([1.0], TypeError, "markov_parameters must be a torch tensor of shape (..., n); got list."),
        (
            torch.ones(3, dtype=torch.complex64),
            TypeError,
            "markov_parameters must be real floating-point numbers (float32 or float64); got torch.complex64. "
            "Convert with .float(), or .real for complex numbers: their imaginary part has no effect.",
        ),
        (
            torch.ones(3, dtype=torch.int64),
            TypeError,
            "markov_parameters must be real floating-point numbers (float32 or float64); got torch.int64. "
            "Convert with .float(), or .real for complex numbers: their imaginary part has no effect.",
        ),
        (
            torch.tensor(1.0),
            ValueError,
            "markov_parameters must have shape (..., n), at least 1 along every axis; got shape ().",
        ),
        (
            torch.ones(2, 0),
            ValueError,
            "markov_parameters must have shape (..., n), at least 1 along every axis; got shape (2, 0).",
        ),
        (
            torch.ones(0, 2),
            ValueError,
            "markov_parameters must have shape (..., n), at least 1 along every axis; got shape (0, 2).",
        ),
        (
            torch.tensor([1.0, float("nan")]),
            ValueError,
            "markov_parameters must be finite; got a tensor with infinite or NaN entries.",
        ),
        (
            torch.tensor([1.0, float("inf")]),
            ValueError,
            "markov_parameters must be finite; got a tensor with infinite or NaN entries.",
        ),
    ],
)
def test_markov_parameters(function, h, error, message):
    with pytest.raises(error, match=exactly(message)):
        function(h)


@sampled
@pytest.mark.parametrize(
    ("dt", "error", "message"),
    [
        (0, ValueError, "finite and above 0 everywhere; got 0.0 (1 of 1 entries)."),
        (-1.0, ValueError, "finite and above 0 everywhere; got -1.0 (1 of 1 entries)."),
        (float("nan"), ValueError, "finite and above 0 everywhere; got nan (1 of 1 entries)."),
        (torch.tensor([1, float("inf"), -1]), ValueError, "finite and above 0 everywhere; got inf (2 of 3 entries)."),
        (torch.tensor([0.5, 0.0, 1.0]), ValueError, "finite and above 0 everywhere; got 0.0 (1 of 3 entries)."),
        (torch.ones(0), ValueError, "must hold at least one number; got shape (0,)."),
        (True, TypeError, "must be a number or a real floating-point tensor; got bool."),
        ("0.1", TypeError, "must be a number or a real floating-point tensor; got str."),
        (None, TypeError, "must be a number or a real floating-point tensor; got NoneType."),
        (torch.tensor(1), TypeError, "must be a number or a real floating-point tensor; got torch.int64."),
        (torch.tensor(1j), TypeError, "must be a number or a real floating-point tensor; got torch.complex64."),
    ],
)
def test_sampling_period(function, dt, error, message):
    text = str(message) if message.startswith("must") else f"must be {message}"
    with pytest.raises(error, match=exactly(f"sampling_period {text}")):
        function(torch.ones(3, 4), dt, 8)


def test_sampling_period_on_another_device():
    """Said before anything is computed."""
    with pytest.raises(ValueError, match=r"must be on the device of the Markov parameters, cpu; got meta\."):
        convolution_kernel(torch.ones(4), torch.ones((), device="meta"), 8)


@sampled
def test_shapes_that_do_not_broadcast(function):
    message = "the batch dimensions of markov_parameters and sampling_period must broadcast; got (3,) and (2,)."
    with pytest.raises(ValueError, match=exactly(message)):
        function(torch.ones(3, 4), torch.ones(2), 8)


@sampled
@pytest.mark.parametrize(
    ("length", "error", "got"),
    [(0, ValueError, "0."), (-3, ValueError, "-3."), (4.0, TypeError, "4.0 (float)."),
     (True, TypeError, "True (bool)."), (None, TypeError, "None (NoneType)."), ("8", TypeError, "'8' (str).")],
)  # fmt: skip
def test_length(function, length, error, got):
    with pytest.raises(error, match=exactly(f"length {WHOLE}{got}")):
        function(torch.ones(4), 1.0, length)


def test_truncation():
    message = "truncation must be one of 'exact', 'none'; got 'exct'. Did you mean 'exact'?"
    with pytest.raises(ValueError, match=exactly(message)):
        convolution_kernel(torch.ones(4), 1.0, 8, truncation="exct")
    with pytest.raises(ValueError, match=exactly(message)):
        HopeKernel(d_model=2, truncation="exct")


def test_backend():
    valid = ", ".join(repr(name) for name in backends.NAMES)
    message = f"backend must be one of {valid}; got 'blockd'. Did you mean 'blocked'?"
    for function in (transfer_function, convolution_kernel):
        with pytest.raises(ValueError, match=exactly(message)):
            function(torch.ones(4), 1.0, 8, backend="blockd")
    with pytest.raises(ValueError, match=exactly(message)):
        HopeKernel(d_model=2, backend="blockd")


def test_options_of_functions_are_keywords():
    with pytest.raises(TypeError, match="takes 3 positional arguments but 4"):
        convolution_kernel(torch.ones(4), 1.0, 8, "none")


# An absent extra


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    message = "the digits need scikit-learn, which is not installed: pip install 'hope-ssm[workbench]'."
    with pytest.raises(ImportError, match=exactly(message)):
        digits()


# The checks themselves


def test_initialization():
    with pytest.raises(
        ValueError, match=r"^init must be one of 'gaussian', .*; got 'gauss'\. Did you mean 'gaussian'\?$"
    ):
        initialization.markov_parameters("gauss", (2, 3), 1.0)


def test_nearest_is_silent_when_nothing_is_near():
    assert checks.nearest("zzz", ["exact", "none"]) == ""
    assert checks.nearest("exat", ["exact", "none"]) == " Did you mean 'exact'?"
    assert checks.nearest(5, ["exact"]) == ""


def test_log_once(caplog):
    logger = logging.getLogger("hope_ssm.test")
    caplog.set_level(logging.INFO, logger="hope_ssm.test")
    for message in ("one", "one", "two"):
        checks.log_once(logger, logging.INFO, message)
    assert [record.getMessage() for record in caplog.records] == ["one", "two"]
