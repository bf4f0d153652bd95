"""Our convolution under the host's own layer: outputs, gradients, masks, states and steps of the real ``FFTConv``."""

from __future__ import annotations

import json
import textwrap

import pytest

from host_output import DONE

PLAIN = ["host-step-hope", "host-step-diag", "host-step-nplr"]
DELAY = ["pipeline=delay", "dataset.l_seq=64", "dataset.l_lag=16", "dataset.n_train=16", "dataset.n_eval=8"]
DELAY += ["model=s4", "+train.remove_test_loader_in_eval=true"]
CODE = """
    import importlib
    import torch
    from hope_ssm.hosts.state_spaces import register
    register()
    from src.models.sequence.kernels.fftconv import FFTConv
    from src.utils.registry import layer
    from hope_ssm.hosts.state_spaces_fftconv import GroupedFFTConv

    assert layer["grouped_fftconv"] == "hope_ssm.hosts.state_spaces_fftconv.GroupedFFTConv"
    auto = importlib.import_module("hope_ssm.ops.long_convolution")
    NAIVE = dict(backend="naive")
    KERNELS = [dict(mode="hope"), dict(mode="diag", init="diag-lin", **NAIVE), dict(mode="nplr", **NAIVE)]
    CASES = [
        (dict(), 12), (dict(transposed=False), 12), (dict(channels=2, swap_channels=True), 7),
        (dict(bidirectional=True), 12), (dict(bidirectional=True), 1),
        (dict(bidirectional=True, channels=2, l_max=5), 12),
        (dict(l_max=5, transposed=False), 12), (dict(l_max=20), 12), (dict(dropout=0.3), 12),
        (dict(dropout=0.3, transposed=False), 12), (dict(dropout=0.3, tie_dropout=True, transposed=False), 12),
        (dict(drop_kernel=0.3, activation="gelu"), 12),
        (dict(drop_kernel=0.3, bidirectional=True, transposed=False), 12),
    ]

    def pair(options):
        options = dict(d_model=4, d_state=6, verbose=False) | options
        torch.manual_seed(1)
        layers = FFTConv(**options), GroupedFFTConv(**options)
        layers[1].load_state_dict(layers[0].state_dict())
        return layers

    def found(module, x, rate, mixed=False):
        torch.manual_seed(5)
        u = x.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            y, _ = module(u, rate=rate)
        weight = torch.arange(y.numel(), dtype=torch.float64).reshape(y.shape).sin()
        return [y, *torch.autograd.grad((y * weight).sum(), [u, *module.parameters()], materialize_grads=True)]

    def inputs(options, length, dtype):
        torch.manual_seed(7)
        return torch.randn((3, 4, length) if options.get("transposed", True) else (3, length, 4)).to(dtype)

    ran = 0
    available = auto.native_build.available
    for way, small in ((available, 0), (lambda: False, 0), (lambda: False, auto.SMALL)):  # native, grouped, whole
        auto.native_build.available, auto.SMALL = way, small
        for kernel in KERNELS:
            # the host's nplr kernel is float32 whatever the default is, and its layer transforms it in that
            bound = dict(rtol=1e-4, atol=1e-5) if kernel["mode"] == "nplr" else dict(rtol=1e-9, atol=1e-10)
            for options, length in CASES:
                for rate in (1.0, 2.0):
                    where = f"{way()} {small} {kernel} {options} {length} {rate}: "
                    torch.set_default_dtype(torch.float64)
                    x = inputs(options, length, torch.float64)
                    own, ours = (found(module, x, rate) for module in pair(kernel | options))
                    for got, exact in zip(ours, own, strict=True):
                        torch.testing.assert_close(got, exact, **bound, msg=lambda m: where + m)
                    torch.set_default_dtype(torch.float32)
                    for dtype in (torch.float32, torch.bfloat16):  # after a norm, after a linear map
                        x = inputs(options, length, dtype)
                        own, ours = (found(module, x, rate, mixed=True) for module in pair(kernel | options))
                        for got, theirs in zip(ours, own, strict=True):
                            assert got.dtype == theirs.dtype, (where, got.dtype, theirs.dtype)
                            near = dict(rtol=0.02, atol=0.01 * theirs.abs().max().item())  # its D x is in bfloat16
                            torch.testing.assert_close(got, theirs, **near, msg=lambda m: where + m)
                    ran += 1
    assert ran == 3 * len(KERNELS) * len(CASES) * 2, ran

    torch.set_default_dtype(torch.float64)
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


@pytest.mark.parametrize("options", [
    ["model.layer.mode=hope", "++model.layer.layer=grouped_fftconv"],
    ["model/layer=hope", "++trainer.precision=bf16-mixed"],
])  # fmt: skip
def test_training_in_the_host(host, tmp_path, options):
    assert DONE in host.train(tmp_path, *DELAY, *options)


def test_the_layer_s_file_has_it(host):
    code = """
        import os
        import hope_ssm.hydra_searchpath
        import train
        from hydra import compose, initialize_config_dir
        with initialize_config_dir(os.path.abspath("configs"), version_base="1.1"):
            config = train.utils.train.process_config(compose("config", ["model/layer=hope", *SMALL]))
            model = train.SequenceLightningModule(config).model
            print("FOUND", *sorted({type(m).__name__ for m in model.modules() if type(m).__name__.endswith("FFTConv")}))
        """
    code = textwrap.dedent(code).replace("*SMALL", ", ".join(map(repr, DELAY[:-1])))
    done = host.python("-c", code)
    assert "FOUND GroupedFFTConv\n" in done.stdout, done.stderr[-3000:]


def test_a_training_step_of_the_host_plain_against_grouped(host, tmp_path):
    """``hope bench`` times the host's own layer under three kernels with both convolutions: docs/host.md."""
    names = [f"{name}{ending}" for name in PLAIN for ending in ("", "-grouped")] + ["host-layer-diag"]
    sizes = ["--features", "4", "--d-state", "4", "--length", "16", "--batch", "2", "--repetitions", "3"]
    line = ["-m", "hope_ssm.cli.main", "bench", *sizes, "--contenders", ",".join(names), "--out", str(tmp_path)]
    done = host.python(*line, directory=tmp_path, STATE_SPACES_HOME=str(host.home))
    assert done.returncode == 0, done.stderr[-3000:]
    rows = {row["name"]: row for row in json.loads((tmp_path / "results.json").read_text())["rows"]}
    assert set(rows) == set(names)
    assert all(row["absent"] is None and row["seconds"] for row in rows.values()), rows
