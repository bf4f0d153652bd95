"""hope export: files that compute what the model does, or none."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from hope_ssm.reporting.machine import silence
from hope_ssm.workbench import exporting
from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.task import SequenceTask
from hope_ssm.workbench.training import train
from tiny import TINY

SMALL = ["pipeline=own", "model=s4", "model.d_model=6", "model.n_layers=1"]


def model(kernel, encoder="linear", **options):
    torch.manual_seed(0)
    config = compose([*SMALL, f"kernel={kernel}"])
    config["model"]["layer"] |= {"d_state": 6, "dt_min": 0.001, "dt_max": 0.1}
    config["model"] |= options
    config["encoder"] = encoder
    return SequenceTask(config, d_input=2, d_output=3, n_tokens=4).eval()


@pytest.mark.parametrize(
    "kernel", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("s4d", "s4", "s4d-real", "hope-bands")), "rtf"]
)
@torch.no_grad()
def test_a_linear_step_is_the_kernel_s_for_thousands_of_steps(kernel):
    """Real and float32, yet near the kernel in float64: A - 1 is rounded and not A."""
    exact = model(kernel).double().model.layers[0].layer.layer.kernel
    if kernel == "rtf":  # which begins at 0
        torch.nn.init.normal_(exact.numerator), torch.nn.init.uniform_(exact.denominator, -0.15, 0.15)
    step = exporting.LinearStep(exact)
    assert {buffer.dtype for buffer in step.buffers()} == {torch.float32}
    assert step.change.shape[-1] == (2 if kernel in ("s4d", "s4d-real") else 6)
    u = torch.randn(2000, 1, 6)
    state, ours, largest, worst = exact.default_state(1), step.default_state(1), 0.0, 0.0
    for one in u if step.change.shape[-1] == 2 else u[:200]:  # those of S4 and of hope-bands are slow in float64
        y, state = exact.step(one.double(), state)
        z, ours = step.step(one, ours)
        largest, worst = max(largest, y.abs().max().item()), max(worst, (y - z).abs().max().item())
    assert worst < 1e-5 * largest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel", "options", "encoder"),
    [("hope", {}, "embedding"), ("s4d", {"norm": "batch"}, "linear"), ("s4", {}, "linear")],
)
def test_the_step_in_onnx_is_real_and_float32(kernel, options, encoder):
    onnx = pytest.importorskip("onnx")
    with silence(*exporting.TALKATIVE), torch.no_grad():
        written, difference = exporting._step(model(kernel, encoder, **options))
    assert difference < 1e-5
    graph = onnx.load_from_string(written).graph
    kinds = {onnx.TensorProto.DataType.Name(constant.data_type) for constant in graph.initializer}
    assert kinds <= {"FLOAT", "INT64", "BOOL"}
    assert [part.name for part in graph.input] == ["x", "state_0", "state_1", "state_2"]
    assert [part.name for part in graph.output] == ["y", *(f"next_state_{i}" for i in range(3))]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"bidirectional": True}, {"pool": {"_name_": "pool", "stride": 2}}, {"norm": "group"}]
)
def test_a_model_without_steps_is_exported_whole(options):
    with silence(*exporting.TALKATIVE), torch.no_grad():
        _, difference = exporting._whole(model("hope", **options), 64)
    assert difference < 1e-5


@pytest.mark.slow
def test_the_command_and_its_refusals(hope, tmp_path, monkeypatch):
    """Files beside the run; a wrong one, or an absent package, leaves nothing behind and is one sentence."""
    onnxruntime = pytest.importorskip("onnxruntime")
    train(compose([*TINY, "kernel=s4d"]), tmp_path / "run", callbacks=[])
    done = hope("export", "run", "--length", "96")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["run-export/step.onnx", "run-export/whole.pt2"]
    session = onnxruntime.InferenceSession(tmp_path / "run-export" / "step.onnx")
    assert session.get_inputs()[1].shape[1:] == [8, 8]
    (y, *_) = session.run(None, {part.name: np.zeros([5, *part.shape[1:]], np.int64 if "int" in part.type else
                                                    np.float32) for part in session.get_inputs()})  # fmt: skip
    assert y.shape == (5, 10)

    with monkeypatch.context() as patch:
        patch.setattr(exporting.Step, "forward", lambda self, x, state: (self.task.step(x, state)[0] + 1, state))
        with pytest.raises(RuntimeError, match=r"step\.onnx must compute what the model does, .* nothing was written"):
            exporting.export(tmp_path / "run", tmp_path / "wrong")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"onnxruntime is not installed\. pip install 'hope-ssm\[export\]'"):
        exporting.export(tmp_path / "run", tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()
