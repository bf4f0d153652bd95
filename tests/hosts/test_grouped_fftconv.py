"""Our convolution under the host's own layer: outputs, gradients, masks, states and steps of the real ``FFTConv``."""

from __future__ import annotations

import json
import textwrap

from host_output import DONE

PLAIN = ["host-step-hope", "host-step-diag", "host-step-nplr"]
DELAY = ["pipeline=delay", "dataset.l_seq=64", "dataset.l_lag=16", "dataset.n_train=16", "dataset.n_eval=8"]
DELAY += ["model=s4", "+train.remove_test_loader_in_eval=true"]
CODE = """
    import torch
    from hope_ssm.hosts.state_spaces import register
    register()
    from src.models.sequence.kernels.fftconv import FFTConv
    from src.utils.registry import layer
    from hope_ssm.hosts.state_spaces_fftconv import GroupedFFTConv

    assert layer["grouped_fftconv"] == "hope_ssm.hosts.state_spaces_fftconv.GroupedFFTConv"
    torch.set_default_dtype(torch.float64)
    NAIVE = dict(backend="naive")
    KERNELS = [dict(mode="hope"), dict(mode="diag", init="diag-lin", **NAIVE), dict(mode="nplr", **NAIVE)]
    CASES = [
        (dict(), 12), (dict(transposed=False), 12), (dict(channels=2, swap_channels=True), 7),
        (dict(bidirectional=True), 12), (dict(bidirectional=True), 1),
        (dict(bidirectional=True, channels=2, l_max=5), 12),
        (dict(l_max=5, transposed=False), 12), (dict(dropout=0.3), 12), (dict(dropout=0.3, transposed=False), 12),
        (dict(dropout=0.3, tie_dropout=True, transposed=False), 12), (dict(drop_kernel=0.3, activation="gelu"), 12),
        (dict(drop_kernel=0.3, bidirectional=True, transposed=False), 12),
    ]

    def pair(options):
        options = dict(d_model=4, d_state=6, verbose=False) | options
        torch.manual_seed(1)
        layers = FFTConv(**options), GroupedFFTConv(**options)
        layers[1].load_state_dict(layers[0].state_dict())
        return layers

    for kernel in KERNELS:
        # the host's nplr kernel is float32 whatever the default is, and its layer transforms it in that
        bound = dict(rtol=1e-4, atol=1e-5) if kernel["mode"] == "nplr" else dict(rtol=1e-9, atol=1e-10)
        for options, length in CASES:
            for rate in (1.0, 2.0) if kernel["mode"] != "nplr" else (1.0,):
                if kernel["mode"] == "nplr" and "l_max" in options:
                    continue
                x = torch.randn((3, 4, length) if options.get("transposed", True) else (3, length, 4))
                found = []
                for module in pair(kernel | options):
                    torch.manual_seed(5)
                    u = x.clone().requires_grad_()
                    y, _ = module(u, rate=rate)
                    weight = torch.arange(y.numel()).reshape(y.shape).sin()
                    trained = [u, *module.parameters()]
                    found.append([y, *torch.autograd.grad((y * weight).sum(), trained, materialize_grads=True)])
                for got, exact in zip(*found, strict=True):
                    torch.testing.assert_close(got, exact, **bound, msg=lambda m: f"{kernel}{options}{m}")

    own, ours = (module.eval() for module in pair(KERNELS[0]))
    x, state = torch.randn(3, 4, 12), torch.randn_like(own.default_state(3))
    for got, exact in zip(ours(x, state=state), own(x, state=state), strict=True):
        torch.testing.assert_close(got, exact)
    ours.setup_step()
    after, outputs = state, []
    for t in range(12):
        y, after = ours.step(x[..., t], after)
        outputs.append(y)
    torch.testing.assert_close(torch.stack(outputs, -1), own(x, state=state)[0])
    print("EQUAL")
"""


def test_equal_to_the_host_s_own_layer(host):
    done = host.python("-c", textwrap.dedent(CODE), STATE_SPACES_HOME=str(host.home))
    assert done.stdout.endswith("EQUAL\n"), done.stderr[-3000:]


def test_training_in_the_host(host, tmp_path):
    assert DONE in host.train(tmp_path, *DELAY, "model.layer.mode=hope", "++model.layer.layer=grouped_fftconv")


def test_a_training_step_of_the_host_plain_against_grouped(host, tmp_path):
    """``hope bench`` times the host's own layer under three kernels with both convolutions: docs/host.md."""
    names = [f"{name}{ending}" for name in PLAIN for ending in ("", "-grouped")]
    sizes = ["--features", "4", "--d-state", "4", "--length", "16", "--batch", "2", "--repetitions", "3"]
    line = ["-m", "hope_ssm.cli.main", "bench", *sizes, "--contenders", ",".join(names), "--out", str(tmp_path)]
    done = host.python(*line, directory=tmp_path, STATE_SPACES_HOME=str(host.home))
    assert done.returncode == 0, done.stderr[-3000:]
    rows = {row["name"]: row for row in json.loads((tmp_path / "results.json").read_text())["rows"]}
    assert set(rows) == set(names)
    assert all(row["absent"] is None and row["seconds"] for row in rows.values()), rows
