"""Checkpoints in the layout of state-spaces/s4, made here: read without the host, against dense float64 systems."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from hope_ssm.cli.main import main
from hope_ssm.hosts import checkpoints, reduction
from hope_ssm.kernels.hope import HopeKernel

LAYER = "model.layers.0.layer.layer"


def saved(path: Path, parameters: dict, **layer) -> Path:
    """Write what the host's Lightning would, for one layer."""
    config = {"train": {}, "dataset": {}, "model": {"_name_": "model", "layer": {"_name_": "s4", "lr": 0.001, **layer}}}
    state = {f"{LAYER}.kernel.{name}": value for name, value in parameters.items()} | {f"{LAYER}.D": torch.ones(1, 1)}
    content = {"state_dict": state, "hyper_parameters": OmegaConf.create(config), "optimizer_states": [], "epoch": 1}
    torch.save(content, path)
    return path


def pairs(complex_numbers: np.ndarray) -> torch.Tensor:
    return torch.view_as_real(torch.tensor(complex_numbers).to(torch.complex64))


def wide(numbers: np.ndarray) -> np.ndarray:
    """As they are after float32."""
    return numbers.astype(np.complex64).astype(complex)


def dense_kernel(A, B, C, length):
    """C Aᵗ B of one feature."""
    samples = []
    for _ in range(length):
        samples.append(C @ B)
        B = A @ B
    return np.array(samples).real


def doubled(x):
    return np.concatenate([x, x.conj()], axis=-1)


@pytest.fixture
def parts(rng):
    """2 channels, 4 features that share 2 copies of λ and B, 3 modes."""
    poles = wide(-rng.uniform(0.1, 1, (2, 3)) - 1j * rng.uniform(0, 5, (2, 3)))
    B, C = (wide(rng.standard_normal((*shape, 2)) @ [1, 1j]) for shape in ((2, 3), (2, 4, 3)))
    inv_dt = torch.tensor(rng.uniform(-3, 0, (4, 1)), dtype=torch.float32)
    return poles, B, C, inv_dt


@pytest.mark.parametrize("disc", ["zoh", "bilinear"])
@pytest.mark.parametrize("transforms", [{}, {"real_transform": "softplus", "dt_transform": "softplus"}])
def test_diagonal_kernels(tmp_path, parts, disc, transforms):
    poles, B, C, inv_dt = parts
    softplus = bool(transforms)
    raw = np.log(np.expm1(-poles.real)) if softplus else np.log(-poles.real)
    parameters = {
        "inv_dt": inv_dt, "A_real": torch.tensor(raw).float(), "A_imag": torch.tensor(-poles.imag).float(),
        "B": pairs(B)[None], "C": pairs(C),
    }  # fmt: skip
    path = saved(tmp_path / "last.ckpt", parameters, mode="diag", disc=disc, d_state=6, **transforms)
    (kernel,) = checkpoints.kernels(checkpoints.read(path)).values()
    got = kernel(L=50)[0].detach().numpy()
    dt = np.log1p(np.exp(inv_dt.double().numpy())) if softplus else np.exp(inv_dt.double().numpy())
    for h in range(4):
        step, x = dt[h, 0], poles[h % 2] * dt[h, 0]
        if disc == "zoh":
            A, B_bar = np.exp(x), np.expm1(x) / poles[h % 2] * B[h % 2]
        else:
            A, B_bar = (1 + x / 2) / (1 - x / 2), step / (1 - x / 2) * B[h % 2]
        for c in range(2):
            exact = dense_kernel(np.diag(doubled(A)), doubled(B_bar), doubled(C[c, h]), 50)
            np.testing.assert_allclose(got[c, h], exact, rtol=0, atol=2e-5 * np.abs(exact).max())


@pytest.mark.parametrize("length", [0, 7, 40])
def test_low_rank_kernels_undo_the_length_that_c_is_for(tmp_path, parts, length, rng):
    poles, B, C, inv_dt = parts
    P = wide(rng.standard_normal((2, 2, 3, 2)) @ [1, 1j])  # rank 2
    dt = np.exp(inv_dt.double().numpy())[:, 0]
    exact, trained = np.empty((2, 4, 60)), np.empty_like(C)
    for h in range(4):
        A = np.diag(doubled(poles[h % 2])) - sum(np.outer(doubled(p[h % 2]), doubled(p[h % 2]).conj()) for p in P)
        inverse = np.linalg.inv(np.eye(6) - dt[h] / 2 * A)
        A, B_bar = inverse @ (np.eye(6) + dt[h] / 2 * A), dt[h] * inverse @ doubled(B[h % 2])
        for c in range(2):
            exact[c, h] = dense_kernel(A, B_bar, doubled(C[c, h]), 60)
            cut = np.eye(6) - np.linalg.matrix_power(A, length) if length else np.eye(6)
            trained[c, h] = (doubled(C[c, h]) @ cut)[:3]
    parameters = {
        "inv_dt": inv_dt, "A_real": torch.tensor(np.log(-poles.real)).float(),
        "A_imag": torch.tensor(-poles.imag).float(), "B": pairs(B)[None], "C": pairs(trained), "P": pairs(P),
        "l_kernel": torch.tensor(length),
    }  # fmt: skip
    path = saved(tmp_path / "last.ckpt", parameters, mode="nplr", rank=2, d_state=6, dt_transform="exp")
    (kernel,) = checkpoints.kernels(checkpoints.read(path)).values()
    np.testing.assert_allclose(kernel(L=60)[0].detach(), exact, rtol=0, atol=1e-4 * np.abs(exact).max())


@pytest.fixture
def of_hope(tmp_path):
    torch.manual_seed(0)
    options = {"d_state": 8, "dt_transform": "exp", "init_scale": 0.5, "n_ssm": None}
    kernel = HopeKernel(d_model=3, channels=2, **options)
    return kernel, saved(tmp_path / "last.ckpt", kernel.state_dict(), mode="hope", rank=1, measure=None, **options)


def test_our_kernels_are_what_they_were(of_hope):
    kernel, path = of_hope
    ((name, same),) = checkpoints.kernels(checkpoints.read(path)).items()
    assert name == LAYER
    torch.testing.assert_close(same(L=40)[0], kernel(L=40)[0], rtol=0, atol=0)


@pytest.mark.slow
def test_commands_take_them(of_hope, tmp_path, capsys):
    _, path = of_hope
    assert main(["inspect", str(path), "--length", "64", "--out", str(tmp_path / "pages")]) == 0
    assert "Markov parameters" in (tmp_path / "pages" / "inspection.json").read_text()
    small = tmp_path / "small.ckpt"
    assert main(["reduce", str(path), "--d-state", "4", "--out", str(small)]) == 0
    assert "model.layer.mode=reduced" in capsys.readouterr().out
    (before,), (after,) = (checkpoints.kernels(checkpoints.read(file)).values() for file in (path, small))
    gap = torch.fft.rfft(before.double()(L=4096)[0] - after.double()(L=4096)[0]).abs().norm(dim=0).amax(-1)
    report = (tmp_path / "small-reduction.json").read_text()
    measured = OmegaConf.create(report)["layers"][LAYER]
    torch.testing.assert_close(gap, torch.tensor([*measured["h_infinity_error"]]).double(), rtol=2e-2, atol=1e-5)
    assert all(e <= c for e, c in zip(measured["h_infinity_error"], measured["certificate"], strict=True))
    layer = checkpoints.read(small)["hyper_parameters"]["model"]["layer"]
    assert (layer["mode"], layer["n_ssm"], layer["lr"]) == ("reduced", None, 0.001)
    assert "init_scale" not in layer
    added = reduction.overrides(checkpoints.read(path), checkpoints.read(small))
    assert added[1] == f"model.layer.d_state={layer['d_state']}"
    assert added[4:] == ["~model.layer.init_scale"]
    assert main(["reduce", str(path), "--d-state", "4", "--out", str(small)]) == 1
    assert "out must be a new file" in capsys.readouterr().err


class Trap:
    """What an unpickler must not run."""

    def __reduce__(self):
        return exec, ("import sys; sys.trapped = True",)


@pytest.mark.parametrize("hook", ["post_init_hook", "pretrained_model_state_hook"])
def test_a_hook_of_a_checkpoint_needs_trust(hook):
    reduction.check_trusted(OmegaConf.create({"train": {hook: {"_name_": None}}}))
    with pytest.raises(ValueError, match=rf"train\.{hook} .* must be empty; it names 'to_onnx', .* say --trust"):
        reduction.check_trusted(OmegaConf.create({"train": {hook: {"_name_": "to_onnx"}}}))


def test_no_code_of_a_checkpoint_runs(tmp_path):
    path = tmp_path / "trap.ckpt"
    torch.save({"state_dict": {}, "hyper_parameters": OmegaConf.create({"model": {}}), "trap": Trap()}, path)
    assert checkpoints.read(path) is None
    with pytest.raises(AttributeError):
        _ = sys.trapped
    path.write_bytes(pickle.dumps(Trap()))
    assert checkpoints.read(path) is None
    assert checkpoints.read(tmp_path / "absent.ckpt") is None


def test_what_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.delenv("STATE_SPACES_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    none = saved(tmp_path / "none.ckpt", {}, mode="hope")
    with pytest.raises(ValueError, match="the model must have a layer with a kernel; that of the checkpoint has none"):
        checkpoints.kernels(checkpoints.read(none))
    theirs = saved(tmp_path / "dense.ckpt", {"inv_dt": torch.ones(1, 1), "C": torch.ones(1, 1, 2, 2)}, mode="dense")
    with pytest.raises(ImportError, match="the kernel 'dense' of this checkpoint needs state-spaces/s4 itself"):
        checkpoints.kernels(checkpoints.read(theirs))
    nameless = saved(tmp_path / "nameless.ckpt", {"C": torch.ones(1, 1, 2, 2)})
    with pytest.raises(ValueError, match="must have one kind of layer with a kernel; got 0"):
        checkpoints.kernels(checkpoints.read(nameless))
