"""Argument checks shared by the public functions: one sentence with what was expected, what came and the mend."""

from __future__ import annotations

import difflib
import inspect
import logging
import math
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any, TypeVar

import torch
from torch import Tensor

# Where float32 carries the warp between sampling periods; beyond, squares of Δt under- or overflow.
SAMPLING_PERIODS = (1e-8, 1e8)

Choice = TypeVar("Choice")
_said: set[str] = set()


def nearest(name: str, valid: Iterable[Any]) -> str:
    """Return ``" Did you mean 'x'?"`` for the valid name closest to ``name``, or ``""`` if none is close."""
    close = difflib.get_close_matches(str(name), [str(v) for v in valid], n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def option_names(owner: Callable) -> list[str]:
    """Return the keyword-only options in a signature."""
    parameters = inspect.signature(owner).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


def check_choice(option: str, value: Any, valid: Iterable[Choice]) -> Choice:
    """Return ``value`` if it is one of ``valid``; otherwise raise ``ValueError`` naming the nearest valid one."""
    valid = list(valid)
    if value not in valid:
        listed = ", ".join(repr(v) for v in valid)
        raise ValueError(f"{option} must be one of {listed}; got {value!r}.{nearest(str(value), valid)}")
    return value


def check_known(owner: str, names: Iterable[Any], valid: Iterable[str], kind: str = "option") -> None:
    """Raise ``TypeError`` for the first name that is not valid; the nearest valid one is named.

    Args:
        owner: what has the options, in words.
        names: the names that were given.
        valid: the names that there are.
        kind: what they are, ``"option"`` or ``"key"``.
    """
    valid = list(valid)
    for name in names:
        if name not in valid:
            raise TypeError(f"{owner} has no {kind} {name!r}; valid are {', '.join(valid)}.{nearest(name, valid)}")


def check_positive_integer(option: str, value: Any) -> int:
    """Return ``value`` as an int if it is a whole number of at least 1; otherwise raise.

    A symbolic size of torch.export stays as it is; torch.jit.trace's sizes are tensors, and become numbers.
    """
    if isinstance(value, torch.SymInt):
        return value  # type: ignore[return-value]
    if torch.jit.is_tracing() and isinstance(value, Tensor) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{option} must be a whole number of at least 1; got {value!r} ({type(value).__name__}).")
    if value < 1:
        raise ValueError(f"{option} must be a whole number of at least 1; got {value}.")
    return int(value)


def check_positive_number(option: str, value: Any) -> float:
    """Return ``value`` as a float if it is a finite number above 0; otherwise raise."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{option} must be a finite number above 0; got {value!r} ({type(value).__name__}).")
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"{option} must be a finite number above 0; got {value}.")
    return float(value)


def check_share(option: str, value: float) -> float:
    """Return a share as a float if it is a number from 0 to 1; otherwise raise."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= 1:
        raise ValueError(f"{option} must be a number from 0 to 1; got {value!r}.")
    return float(value)


def check_real(what: str, x: Any) -> Tensor:
    """Return ``x`` if it is a tensor of real floating-point numbers; otherwise raise ``TypeError``."""
    if isinstance(x, Tensor) and x.is_floating_point():
        return x
    got = x.dtype if isinstance(x, Tensor) else type(x).__name__
    mend = "Take its real and imaginary parts as features." if "complex" in str(got) else "Convert with .float()."
    raise TypeError(f"{what} must be a tensor of real floating-point numbers; got {got}. {mend}")


def check_flag(option: str, value: Any) -> bool:
    """Return ``value`` if it is true or false; otherwise raise: the text "no" would count as true."""
    if not isinstance(value, bool):
        raise TypeError(f"{option} must be true or false; got {value!r} ({type(value).__name__}).")
    return value


def check_markov_parameters(markov_parameters: Any) -> Tensor:
    """Return the Markov parameters ``(..., n)`` if they are a real, finite floating-point tensor; otherwise raise."""
    h = markov_parameters
    if not isinstance(h, Tensor):
        raise TypeError(f"markov_parameters must be a torch tensor of shape (..., n); got {type(h).__name__}.")
    if not h.is_floating_point():
        raise TypeError(
            f"markov_parameters must be real floating-point numbers (float32 or float64); got {h.dtype}. "
            "Convert with .float(), or .real for complex numbers: their imaginary part has no effect."
        )
    if h.ndim < 1 or h.numel() == 0:
        raise ValueError(
            f"markov_parameters must have shape (..., n), at least 1 along every axis; got shape {tuple(h.shape)}."
        )
    if not torch.isfinite(h).all():
        raise ValueError("markov_parameters must be finite; got a tensor with infinite or NaN entries.")
    return h


def check_sampling_period(sampling_period: Any, like: Tensor) -> Tensor:
    """Return the sampling period as a tensor on ``like``'s device if finite and above 0; otherwise raise."""
    dt = sampling_period
    if isinstance(dt, Real) and not isinstance(dt, bool):
        dt = torch.tensor(float(dt), dtype=like.dtype, device=like.device)
    if not isinstance(dt, Tensor) or not dt.is_floating_point():
        got = dt.dtype if isinstance(dt, Tensor) else type(dt).__name__
        raise TypeError(f"sampling_period must be a number or a real floating-point tensor; got {got}.")
    if dt.device != like.device:
        raise ValueError(
            f"sampling_period must be on the device of the Markov parameters, {like.device}; got {dt.device}."
        )
    if dt.numel() == 0:
        raise ValueError(f"sampling_period must hold at least one number; got shape {tuple(dt.shape)}.")
    if not (torch.isfinite(dt) & (dt > 0)).all():
        raise ValueError("sampling_period must be finite and above 0 everywhere; got " + _worst(dt, dt > 0) + ".")
    lowest, highest = SAMPLING_PERIODS
    inside = (dt >= lowest) & (dt <= highest)
    if not inside.all():
        raise ValueError(f"sampling_period must be from {lowest:g} to {highest:g}; got {_worst(dt, inside)}.")
    return dt


def check_lengths(lengths: Any, batch: int, longest: int) -> Tensor:
    """Return the lengths of the sequences of a padded batch (B, L, …): whole numbers (B,), from 1 to L; else raise."""
    wanted = f"lengths must be a tensor of {batch} whole numbers, one per sequence, from 1 to {longest}"
    if not isinstance(lengths, Tensor):
        raise TypeError(f"{wanted}; got {type(lengths).__name__}.")
    if lengths.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        raise TypeError(f"{wanted}; got {lengths.dtype}. Convert with .long().")
    if lengths.shape != (batch,):
        raise ValueError(f"{wanted}; got shape {tuple(lengths.shape)}.")
    outside = lengths[(lengths < 1) | (lengths > longest)]
    if outside.numel():
        raise ValueError(f"{wanted}; got {outside[0].item()}.")
    return lengths


def check_broadcast(first: tuple[str, torch.Size], second: tuple[str, torch.Size]) -> torch.Size:
    """Return the common batch shape of two named shapes; raise ``ValueError`` if they do not broadcast."""
    try:
        return torch.broadcast_shapes(first[1], second[1])
    except RuntimeError:
        raise ValueError(
            f"the batch dimensions of {first[0]} and {second[0]} must broadcast; "
            f"got {tuple(first[1])} and {tuple(second[1])}."
        ) from None


def _worst(dt: Tensor, fine: Tensor) -> str:
    bad = dt[~(torch.isfinite(dt) & fine)]
    return f"{bad.flatten()[0].item()} ({bad.numel()} of {dt.numel()} entries)"


def log_once(logger: logging.Logger, level: int, message: str) -> None:
    """Log ``message`` at ``level`` unless this process has logged the same message before."""
    if message not in _said:
        _said.add(message)
        logger.log(level, message)
