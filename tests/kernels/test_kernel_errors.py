"""Bad options, calls and checkpoints of a kernel: one sentence with what was expected, what came and the mend."""

from __future__ import annotations

import logging
import re
from itertools import permutations

import pytest
import torch
from omegaconf import OmegaConf

from combinations import diagonal
from hope_ssm import HopeKernel, checks
from hope_ssm.kernels.s4d import S4DKernel
from kernel_cases import ENTRIES, RECURRENT
from messages import NUMBER, WHOLE, exactly

KERNELS = {name: ENTRIES[name].load() for name in RECURRENT}  # for conv see test_conv_kernel.py
TYPES = list(KERNELS.values())

every_kernel = pytest.mark.parametrize("kernel", TYPES, ids=KERNELS)


# The options of the kernels


OPTIONS = [
    ("d_model", 0, ValueError, f"d_model {WHOLE}0."),
    ("d_model", 2.0, TypeError, f"d_model {WHOLE}2.0 (float)."),
    ("d_state", 0, ValueError, f"d_state {WHOLE}0."),
    ("d_state", -2, ValueError, f"d_state {WHOLE}-2."),
    ("d_state", "8", TypeError, f"d_state {WHOLE}'8' (str)."),
    ("channels", 0, ValueError, f"channels {WHOLE}0."),
    ("l_max", 0, ValueError, f"l_max {WHOLE}0."),
    ("l_max", -1, ValueError, f"l_max {WHOLE}-1."),
    ("l_max", 1.5, TypeError, f"l_max {WHOLE}1.5 (float)."),
    ("n_ssm", 0, ValueError, f"n_ssm {WHOLE}0."),
    ("n_ssm", 3, ValueError, "n_ssm must divide d_model; got n_ssm=3 and d_model=4."),
    ("dt_min", 0, ValueError, f"dt_min {NUMBER}0."),
    ("dt_min", float("nan"), ValueError, f"dt_min {NUMBER}nan."),
    ("dt_max", float("inf"), ValueError, f"dt_max {NUMBER}inf."),
    ("dt_max", "1", TypeError, f"dt_max {NUMBER}'1' (str)."),
    ("dt_min", 5.0, ValueError, "dt_min must not be above dt_max; got dt_min=5.0 and dt_max=1.0."),
    ("dt_transform", "expp", ValueError,
     "dt_transform must be one of 'exp', 'softplus'; got 'expp'. Did you mean 'exp'?"),
    ("deterministic", "no", TypeError, "deterministic must be true or false; got 'no' (str)."),
    ("verbose", 1, TypeError, "verbose must be true or false; got 1 (int)."),
    ("lr", -0.1, ValueError, "lr must be finite and at least 0; got -0.1."),
    ("lr", float("nan"), ValueError, "lr must be finite and at least 0; got nan."),
    ("lr", "0.1", TypeError, "lr must be a number of at least 0 or a mapping of such; got '0.1'."),
    ("lr", True, TypeError, "lr must be a number of at least 0 or a mapping of such; got True."),
    ("lr", {"dt": "fast"}, TypeError, "lr.dt must be a number of at least 0 or a mapping of such; got 'fast'."),
    ("wd", {"dt": -1}, ValueError, "wd.dt must be finite and at least 0; got -1."),
    ("wd", float("inf"), ValueError, "wd must be finite and at least 0; got inf."),
]  # fmt: skip


@pytest.mark.parametrize(("kernel", "option", "value", "error", "message"), diagonal(TYPES, OPTIONS))
def test_option(kernel, option, value, error, message):
    options = {"d_model": 4, "d_state": 4, "dt_min": 0.1, "dt_max": 1.0, "verbose": False} | {option: value}
    if option in kernel.idle_options:  # of a kernel without Δt
        kernel(**options)
        return
    with pytest.raises(error, match=exactly(message)):
        kernel(**options)


MISSPELT = [("d_stat", "d_state"), ("dt_mni", "dt_min"), ("n_sms", "n_ssm"), ("learning_rate_of_everything", None)]


@pytest.mark.parametrize(("kernel", "option", "nearest"), diagonal(TYPES, MISSPELT))
@pytest.mark.parametrize("value", [1, None])
def test_unknown_option(kernel, option, nearest, value):
    """Also when it is None: a misspelt option is not an unset one. Options without effect are not suggested."""
    with pytest.raises(TypeError) as caught:
        kernel(d_model=4, **{option: value})
    message = str(caught.value)
    assert message.startswith(f"the {kernel.name} kernel has no option {option!r}; valid are d_model, ")
    assert ", d_state" in message
    if nearest and nearest not in kernel.idle_options:
        assert message.endswith(f" Did you mean {nearest!r}?")
    assert "options" not in message


@every_kernel
@pytest.mark.parametrize("setting", ["lr", "wd"])
def test_unknown_key_of_lr_and_wd(kernel, setting):
    for mapping in ({"sampling_perod": 0.1}, OmegaConf.create({"sampling_perod": 0.1})):
        with pytest.raises(ValueError, match=f"^{setting} has no key 'sampling_perod'; valid are .* 'sampling_period'"):
            kernel(d_model=4, d_state=4, **{setting: mapping})


def test_two_names_of_one_parameter_must_agree():
    message = "the keys C, markov_parameters name one parameter; got different values [0.1, 0.2]."
    with pytest.raises(ValueError, match=exactly(message)):
        HopeKernel(d_model=2, lr={"C": 0.1, "markov_parameters": 0.2})


@pytest.mark.parametrize("init", ["gausian", "orthogonal", 5, ["gaussian"]])
def test_init_of_hope(init):
    with pytest.raises(ValueError, match=r"^init must be one of 'gaussian', 'uniform', .*; got .*\."):
        HopeKernel(d_model=2, init=init)


@pytest.mark.parametrize("init", ["diag-leg", "hippo-legs", 5, ["lin"]])
def test_init_of_s4d(init):
    with pytest.raises(ValueError, match=r"^init must be one of 'diag-lin', 'diag-inv', 'diag-legs', .*; got "):
        S4DKernel(d_model=2, init=init)


@pytest.mark.parametrize("name", ["s4d", "dss", "stable"])
@pytest.mark.parametrize("init", ["diag-rand", "diag-uniform"])
def test_random_poles_are_not_deterministic(name, init):
    message = f"init must not be random with deterministic=true; got {init!r}. Take diag-lin or diag-legs."
    with pytest.raises(ValueError, match=exactly(message)):
        KERNELS[name](d_model=2, init=init, deterministic=True)


def test_other_options_of_one_kernel():
    with pytest.raises(ValueError, match=exactly(f"init_scale {NUMBER}0.")):
        HopeKernel(d_model=2, init_scale=0)
    with pytest.raises(ValueError, match=exactly("disc must be one of 'zoh', 'bilinear'; got 'euler'.")):
        S4DKernel(d_model=2, disc="euler")
    with pytest.raises(ValueError, match=exactly(
        "d_state of s4d must be even, because its modes come in conjugate pairs; got 3."
    )):  # fmt: skip
        S4DKernel(d_model=2, d_state=3)
    with pytest.raises(TypeError, match="the s4d kernel has no option 'truncation'"):
        S4DKernel(d_model=2, truncation="exact")


@every_kernel
def test_s4_only_options_are_ignored_with_one_line(kernel, caplog):
    """Named once in a process however many layers there are; not at all when they are unset or verbose is off."""
    caplog.set_level(logging.INFO, logger="hope_ssm.kernels")
    torch.manual_seed(0)
    plain = kernel(d_model=4, d_state=4, l_max=5, verbose=False)(L=5)[0]
    assert torch.is_tensor(kernel(d_model=4, d_state=4, l_max=5, verbose=False, comp=True)(L=5)[0])
    assert not caplog.records
    for _ in range(3):
        torch.manual_seed(0)
        ignoring = kernel(d_model=4, d_state=4, l_max=5, comp=True, measure="legt", dt_tie=True, bandlimit=None)
        assert torch.equal(ignoring(L=5)[0], plain)
    (record,) = caplog.records
    assert (
        record.getMessage()
        == f"{kernel.name}: the options comp=True, measure=legt, dt_tie=True of other kernels have no effect."
    )


# Calls


CALLS = [
    ({}, ValueError, "the kernel's length must be given as L when l_max is None; got neither."),
    ({"L": 0}, ValueError, f"L {WHOLE}0."),
    ({"L": 2.5}, TypeError, f"L {WHOLE}2.5 (float)."),
    ({"L": 4, "rate": 0}, ValueError, f"rate {NUMBER}0."),
    ({"L": 4, "rate": -1.0}, ValueError, f"rate {NUMBER}-1.0."),
    ({"L": 4, "rate": float("nan")}, ValueError, f"rate {NUMBER}nan."),
    ({"L": 4, "rate": "2"}, TypeError, f"rate {NUMBER}'2' (str)."),
]


@pytest.mark.parametrize(("kernel", "arguments", "error", "message"), diagonal(TYPES, CALLS))
def test_forward(kernel, arguments, error, message):
    with pytest.raises(error, match=exactly(message)):
        kernel(d_model=4, d_state=4, verbose=False)(**arguments)


@every_kernel
def test_state(kernel):
    """Of another size, kind or number of axes: not broadcast into something else."""
    module = kernel(d_model=4, d_state=6, verbose=False)
    good = module.default_state(2)
    kind, other = ("complex", good.real) if good.is_complex() else ("real", good + 0j)
    wanted = f"the state must be {kind} of shape (batch, 4, {good.shape[-1]}); got "
    for state in (good[0], good[:, :1], good[..., :1], good.unsqueeze(1), good.transpose(1, 2)):
        with pytest.raises(ValueError, match=re.escape(f"{wanted}shape {tuple(state.shape)}. default_state(batch)")):
            module(L=5, state=state)
    for state, got in ((other, str(other.dtype)), (0, "int"), ([], "list")):
        with pytest.raises(TypeError, match=re.escape(f"{wanted}{got}. default_state(batch) makes one.")):
            module(L=5, state=state)


INPUTS = [
    ("step", "B, H", (2, 1)), ("step", "B, H", (2, 4, 1)), ("step", "B, H", (4,)),
    ("forward_state", "B, H, L", (2, 1, 5)), ("forward_state", "B, H, L", (2, 5, 4)),
    ("forward_state", "B, H, L", (2, 4)), ("forward_state", "B, H, L", (2, 4, 0)),
]  # fmt: skip


@pytest.mark.parametrize(("kernel", "call", "axes", "shape"), diagonal(TYPES, INPUTS))
def test_inputs(kernel, call, axes, shape):
    module = kernel(d_model=4, d_state=6, verbose=False)
    message = f"u must have shape ({axes}) with H = d_model = 4; got {shape}."
    with pytest.raises(ValueError, match=exactly(message)):
        getattr(module, call)(torch.zeros(shape), module.default_state(2))


@every_kernel
@pytest.mark.parametrize(("call", "shape"), [("step", (2, 4)), ("forward_state", (2, 4, 5))])
def test_inputs_and_state_of_different_batches(kernel, call, shape):
    module = kernel(d_model=4, d_state=6, verbose=False)
    with pytest.raises(ValueError, match=r"^u and the state must have one batch size; got 2 and 1\. default_state"):
        getattr(module, call)(torch.zeros(shape), module.default_state(1))


# Checkpoints


@pytest.mark.parametrize(
    ("one", "other"),
    [pytest.param(*pair, marks=[] if "hope" in pair else pytest.mark.slow) for pair in permutations(KERNELS, 2)],
)
def test_checkpoint_of_another_kernel(one, other, caplog):
    """At the top and inside a model; a sentence says it in the log, torch's error names the parameters."""
    models = [torch.nn.ModuleDict({"layer": KERNELS[n](d_model=4, d_state=4)}) for n in (one, other)]
    states = [set(model.state_dict()) for model in models]
    caplog.clear()
    checks._said.clear()
    for model, state in ((models[0], models[1]), (models[0]["layer"], models[1]["layer"])):
        with pytest.raises(RuntimeError, match=r"(Missing|Unexpected) key"):
            model.load_state_dict(state.state_dict())
    said = [record.getMessage() for record in caplog.records if "must hold" in record.getMessage()]
    if states[0] - states[1] and states[1] - states[0]:
        for message, place in zip(said, ("layer", "the top"), strict=True):
            assert message.startswith(f"the checkpoint must hold a {one} kernel at {place!r} (")
            assert message.endswith("Load it into a model with the kernel it was trained with.")


@every_kernel
def test_checkpoint_of_another_size(kernel):
    with pytest.raises(RuntimeError, match="size mismatch for"):
        kernel(d_model=4, d_state=4).load_state_dict(kernel(d_model=4, d_state=6).state_dict())
