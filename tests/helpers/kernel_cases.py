"""Every kernel of this distribution with the variants of its options, for the conformance suites."""

from __future__ import annotations

import math

import pytest
import torch

from hope_ssm import registry
from hope_ssm.kernels.modal import ModalKernel

H, N, L = 4, 6, 12
LONGEST = 40  # samples of a kernel that has to know
ENTRIES = registry.own_entries()
RECURRENT = [name for name, entry in ENTRIES.items() if entry.recurrent]
SAMPLED = [name for name in RECURRENT if "raw_sampling_period" in ENTRIES[name].load().optimizer_options]
OUTPUTS = {"hope": "markov_parameters", "rtf": "numerator"}  # what answers to C elsewhere
VARIANTS = {
    "plain": {},
    "channels": {"channels": 2},
    "deterministic": {"deterministic": True},
    "lr_none": {"lr": None, "wd": None},
    "lr_number": {"lr": 0.002, "wd": 0.03},
    "lr_mapping": {"lr": {"dt": 0.001, "A": 0.001, "B": 0.001}, "wd": 0.0},
}
STATE_SPACE_VARIANTS = {
    **VARIANTS,
    "tied": {"n_ssm": 1},
    "half_tied": {"n_ssm": 2, "channels": 2},
    "lr_zero": {"lr": 0},
    "all_named_frozen": {"lr": {"dt": 0, "A": 0, "B": 0}},
    "C_frozen": {"lr": {"C": 0}},
}
SAMPLED_VARIANTS = {
    **STATE_SPACE_VARIANTS,
    "exp": {"dt_transform": "exp"},
    "softplus": {"dt_transform": "softplus"},
    "dt_frozen": {"lr": {"dt": 0}},
}
CASES = [  # the fast tests see every variant of hope and s4d, and every kernel without options
    pytest.param(
        name,
        options,
        id=f"{name}-{variant}",
        marks=[] if variant == "plain" or name in ("hope", "s4d") else pytest.mark.slow,
    )
    for name in ENTRIES
    for variant, options in (
        SAMPLED_VARIANTS if name in SAMPLED else STATE_SPACE_VARIANTS if name in RECURRENT else VARIANTS
    ).items()
]

# One kernel per way to compute: the modal ones differ in their poles alone, and S4 in its low-rank correction.
FAMILIES = [n for n in RECURRENT if n in ("s4d", "s4") or not issubclass(ENTRIES[n].load(), ModalKernel)]
# For layers and models, which treat all alike: Markov parameters, modes, modes with a low-rank correction.
KINDS = ["hope", "s4d", "s4"]

every_kernel = pytest.mark.parametrize("name", ENTRIES)
every_family = pytest.mark.parametrize("name", FAMILIES)
every_case = pytest.mark.parametrize(("name", "options"), CASES)
recurrent_kernels = pytest.mark.parametrize("name", RECURRENT)
sampled_kernels = pytest.mark.parametrize("name", SAMPLED)
recurrent_cases = pytest.mark.parametrize(("name", "options"), [case for case in CASES if case.values[0] in RECURRENT])


def build(name, **options):
    """A small kernel; only sampled ones have ranges of Δt, and the one without a state space has a length."""
    own = {"d_state": N} if name in RECURRENT else {"l_max": LONGEST}
    own |= {"dt_min": 0.05, "dt_max": 2.0} if name in SAMPLED else {}
    return ENTRIES[name].load()(**{"d_model": H, "verbose": False} | own | options)


def optimizer_options(parameter):
    return getattr(parameter, "_optim", {})


@torch.no_grad()
def double_the_periods(kernel):
    """Give a kernel with dt_transform=exp twice its sampling periods, by its parameters alone."""
    if hasattr(kernel, "frequency"):  # of hope-bands: c / √(1 - a²) and ω / Δt stay as they are
        dt = kernel.raw_band_sampling_period.exp()[..., None, None]
        kernel.C.mul_(math.sqrt(2) * (1 + dt) / (1 + 2 * dt))
        kernel.frequency.mul_(2)
    for key, value in kernel.named_parameters():
        if "sampling_period" in key:
            value.add_(math.log(2))
