"""Layers of ours in the host: eSSM, S5, LinOSS, the input memory and the frequency filter.

Runs when STATE_SPACES_HOME names a checkout; see conftest.py.
"""

from __future__ import annotations

import textwrap

import pytest

from host_output import DONE

DELAY = ["pipeline=delay", "dataset.l_seq=64", "dataset.l_lag=16", "dataset.n_train=16", "dataset.n_eval=8"]
DELAY += ["model=s4", "+train.remove_test_loader_in_eval=true"]
MEMORY, FILTER = "++model.layer.input_memory.size=3", "++model.layer.frequency_filter.exponent=0.5"
LINES = {
    "essm": ["model/layer=essm", "model.layer.heads=2"],
    "s5": ["model/layer=s5"],
    "linoss": ["model/layer=linoss", "model.layer.discretization=damped"],
    "essm, memory, both ways": ["model/layer=essm", "model.layer.heads=2", MEMORY, "model.layer.bidirectional=true"],
    "hope, memory": ["model.layer.mode=hope", "++model.layer.layer=input_memory_fftconv", MEMORY],
    "hope, filter": ["model.layer.mode=hope", "++model.layer.layer=grouped_fftconv", FILTER],
    "the host's s4d, memory, filter, scale": [
        "model.layer.mode=diag", "model.layer.init=diag-lin", "+model.layer.backend=naive",
        "++model.layer.imag_scale=3", "++model.layer.layer=input_memory_fftconv", MEMORY, FILTER,
    ],
}  # fmt: skip
CODE = """
    import torch
    from hope_ssm.hosts.state_spaces import register
    register()
    from src.utils.registry import layer
    from hope_ssm.hosts.state_spaces_fftconv import GroupedFFTConv
    from hope_ssm.hosts.state_spaces_layers import HostESSM, HostLinOSS, HostS5, InputMemoryFFTConv
    from hope_ssm.layers.essm import ESSM
    from hope_ssm.layers.fftconv import FFTConvolution
    from hope_ssm.layers.input_memory import WithInputMemory, with_input_memory
    from hope_ssm.layers.linoss import LinOSS
    from hope_ssm.layers.s5 import S5
    from src.models.sequence.kernels import registry

    torch.set_default_dtype(torch.float64)
    assert layer["essm"] == "hope_ssm.hosts.state_spaces_layers.HostESSM"
    x = torch.randn(3, 12, 4)
    MEMORY = dict(size=3)
    for options in (dict(), dict(bidirectional=True), dict(channels=2, l_max=5)):
        common = dict(frequency_filter=dict(exponent=0.4), d_state=6, verbose=False) | options
        here = FFTConvolution(4, "hope", **common)
        there = GroupedFFTConv(4, mode="hope", transposed=False, **common)
        there.load_state_dict(here.state_dict())
        torch.testing.assert_close(there(x)[0], here(x)[0])
        (there(x)[0] ** 2).sum().backward()
        assert there.frequency_filter.exponent.grad.abs().max() > 0
        assert there.frequency_filter.exponent._optim == {"lr": 0.01, "weight_decay": 0.0}
        there.transposed = True
        torch.testing.assert_close(there(x.mT)[0].mT, here(x)[0])
    state = there.default_state(3)
    for call in (lambda: there(x.mT, state=state), lambda: there.step(x[:, 0], state), there.setup_step):
        try:
            call()
        except ValueError as error:
            assert "must be called on whole sequences" in str(error), error
        else:
            raise AssertionError("a filter in a recurrence")

    pairs = [
        (ESSM(4, heads=2, d_state=6, input_memory=MEMORY), HostESSM(4, heads=2, d_state=6, input_memory=MEMORY)),
        (S5(4, d_state=6, input_memory=MEMORY), HostS5(4, d_state=6, input_memory=MEMORY)),
        (LinOSS(4, d_state=6, input_memory=MEMORY), HostLinOSS(4, d_state=6, input_memory=MEMORY)),
        (with_input_memory(FFTConvolution(4, "hope", d_state=6, verbose=False), MEMORY, 4),
         InputMemoryFFTConv(4, MEMORY, transposed=False, mode="hope", d_state=6, verbose=False)),
    ]
    for here, there in pairs:
        here, there = here.eval(), there.eval()
        for module in here.modules():
            if isinstance(module, WithInputMemory):
                torch.nn.init.normal_(module.memory.weight)
        there.layer.load_state_dict(here.state_dict())
        y, _ = here(x)
        torch.testing.assert_close(there(x)[0], y)
        there.setup_step()
        state, outputs = there.default_state(3), []
        for u in x.unbind(1):
            out, state = there.step(u, state)
            outputs.append(out)
        torch.testing.assert_close(torch.stack(outputs, 1), y)

    # α is a factor of the host's own initial frequencies, as of ours.
    args = dict(d_model=4, d_state=6, channels=1, init="diag-lin", backend="naive", verbose=False)
    one, three = (registry["diag"](**args, imag_scale=scale) for scale in (1.0, 3.0))
    torch.testing.assert_close(three.A_imag, 3 * one.A_imag, rtol=1e-6, atol=1e-3)  # it clamps a frequency of 0
    torch.testing.assert_close(three.A_real, one.A_real)
    print("EQUAL")
"""


def test_equal_to_the_layers_of_the_workbench(host):
    done = host.python("-c", textwrap.dedent(CODE), STATE_SPACES_HOME=str(host.home))
    assert done.stdout.endswith("EQUAL\n"), done.stderr[-3000:]


@pytest.mark.parametrize("name", LINES)
def test_training_in_the_host(host, tmp_path, name):
    assert DONE in host.train(tmp_path, *DELAY, *LINES[name])
