"""A trained model as files for other programs: one step as ONNX, the whole sequence as a program of torch.export.

Both are compared with the model before they are written. Axes: B batch, C channels, H features, L steps, n states.
"""

from __future__ import annotations

import copy
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hope_ssm.checks import check_positive_integer
from hope_ssm.extras import install_line
from hope_ssm.kernels.hope import HopeKernel
from hope_ssm.kernels.to_state_space import stepped_system
from hope_ssm.layers.fftconv import FFTConvolution
from hope_ssm.layers.tail_pool import TailPool
from hope_ssm.ops import realization
from hope_ssm.reporting.machine import silence
from hope_ssm.storage import whole_file
from hope_ssm.workbench.evaluation import load
from hope_ssm.workbench.models.coders import RetrievalDecoder
from hope_ssm.workbench.task import SequenceTask

STEP, WHOLE = "step.onnx", "whole.pt2"
INSTALL = install_line("export")
TOLERANCE = 1e-3  # of the largest output: float32 in another order, over the steps of the comparison
COMPARED = 64  # steps
TALKATIVE = ("torch.onnx", "onnxscript", "onnx_ir")  # exporters, of their own insides


class RealStep(nn.Module):
    """A kernel that takes one sample at a time, in real float32, with what follows from its parameters as constants.

    Args:
        features: H.
        n: real numbers of a state.
        **constants: tensors, by name.
    """

    def __init__(self, features: int, n: int, **constants: Tensor) -> None:
        super().__init__()
        self.shape = (features, n)
        for name, value in constants.items():
            self.register_buffer(name, value.detach().contiguous().float())

    def _setup_step(self) -> None:
        """Do nothing, as the kernel itself."""

    def default_state(self, *batch_shape: int) -> Tensor:
        """Return the zero state (*batch_shape, H, n)."""
        return torch.zeros(*batch_shape, *self.shape)


class HopeStep(RealStep):
    """The step of HOPE, which is real as it is (``realization.step``)."""

    markov_parameters: Tensor
    sampling_period: Tensor

    def __init__(self, kernel: HopeKernel) -> None:
        h, dt = kernel._system(1.0)
        super().__init__(kernel.d_model, kernel.n, markov_parameters=h, sampling_period=dt)

    def step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Map u (B, H) and a state (B, H, n) to y (B, C, H) and the next state."""
        return realization.step(self.markov_parameters, self.sampling_period, u, state)


class LinearStep(RealStep):
    """y = C s + D u,  s ← s + (A - 1) s + B u, the step of any other kernel.

    A complex state is n real numbers, each as (real part, imaginary part). A - 1 is rounded and not A, so that slow
    modes keep their phase. Where A couples these pairs alone, as with diagonal kernels, only its 2 × 2 blocks are kept.

    Args:
        kernel: with ``step`` and ``default_state``, linear and one system per feature.
    """

    change: Tensor
    B: Tensor
    C: Tensor
    D: Tensor

    def __init__(self, kernel: nn.Module) -> None:
        system = stepped_system(kernel)
        features, n = system.B.shape
        change, pair = system.A - torch.eye(n, dtype=system.A.dtype), torch.arange(n) // 2
        width = 2 if n % 2 == 0 and not change[:, pair.unsqueeze(-1) != pair].any() else n
        blocks = change.unflatten(2, (-1, width)).unflatten(1, (-1, width)).diagonal(dim1=1, dim2=3)
        super().__init__(features, n, change=blocks.permute(0, 3, 1, 2), B=system.B, C=system.C, D=system.D.mT)

    def step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Map u (B, H) and a state (B, H, n) to y (B, C, H) and the next state."""
        y = torch.einsum("hcn,bhn->bch", self.C, state) + self.D * u.unsqueeze(1)
        pairs = state.unflatten(-1, (-1, self.change.shape[-1]))
        moved = torch.einsum("hjpq,bhjq->bhjp", self.change, pairs).flatten(-2)
        return y, state + moved + self.B * u.unsqueeze(-1)


class Step(nn.Module):
    """(x (B, d_input), state) ↦ (y (B, d_output), state) of a trained model, in real float32."""

    def __init__(self, task: SequenceTask) -> None:
        super().__init__()
        self.task = _without_trainer(task)
        for layer in self.task.modules():
            if isinstance(layer, FFTConvolution):
                layer.kernel = (HopeStep if isinstance(layer.kernel, HopeKernel) else LinearStep)(layer.kernel)

    def default_state(self, batch: int) -> list[Tensor]:
        """Return the state before the first step."""
        return self.task.default_state(batch)

    def forward(self, x: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Map one sample."""
        return self.task.step(x, state)


class Whole(nn.Module):
    """x (B, L, d_input) ↦ the model's prediction."""

    def __init__(self, task: SequenceTask) -> None:
        super().__init__()
        self.task = _without_trainer(task)

    def forward(self, x: Tensor) -> Tensor:
        """Map whole sequences."""
        return self.task(x)


def _without_trainer(task: SequenceTask) -> Any:
    return copy.deepcopy(task).float().eval()


@dataclass(frozen=True)
class Export:
    """The files that were written, the largest differences from the model over its largest output, what is missing."""

    files: dict[str, Path]
    differences: dict[str, float]
    missing: dict[str, str]


def export(
    run: str | os.PathLike, out: str | os.PathLike | None = None, checkpoint: str = "best", length: int = 1024
) -> Export:
    """Write ``step.onnx`` and ``whole.pt2`` of a run, each after a comparison with the model.

    The step takes any batch and has state in and out; the whole takes any batch of sequences of up to ``length``
    steps, of exactly as many where a pool has a stride. A model without a recurrent form has no step; ``missing`` says
    why.

    Args:
        run: see ``load``.
        out: folder of the files, RUN-export if None; what is not written whole and right is not there.
        checkpoint: see ``load``.
        length: the longest sequence, at least 2.

    Raises:
        ImportError: onnx, onnxruntime or onnxscript is not installed.
        RuntimeError: a file would not compute what the model does.
    """
    task = load(run, checkpoint)
    length = max(2, check_positive_integer("length", length))
    folder = Path(out) if out is not None else Path(f"{os.fspath(run).rstrip('/').removesuffix('.ckpt')}-export")
    content: dict[str, bytes] = {}
    done = Export({}, {}, {})
    with silence(*TALKATIVE), torch.no_grad():
        try:
            task.default_state(1)
        except (ValueError, NotImplementedError) as error:
            done.missing[STEP] = str(error)
        else:
            content[STEP], done.differences[STEP] = _step(task)
        content[WHOLE], done.differences[WHOLE] = _whole(task, length)
    folder.mkdir(parents=True, exist_ok=True)
    for name, written in content.items():
        with whole_file(folder / name) as file:
            file.write(written)
        done.files[name] = folder / name
    return done


def inputs(task: SequenceTask, batch: int, length: int) -> Tensor:
    """Return random sequences such as the model takes: white noise (B, L, d_input), or tokens (B, L)."""
    known, generator = task.hparams, torch.Generator().manual_seed(0)
    batch *= 2 if isinstance(task.decoder, RetrievalDecoder) else 1
    if known["n_tokens"] is not None and known["config"]["encoder"] != "linear":
        return torch.randint(known["n_tokens"], (batch, length), generator=generator)
    return torch.randn(batch, length, known["d_input"], generator=generator)


def _step(task: SequenceTask) -> tuple[bytes, float]:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"hope export must have onnx, onnxruntime and onnxscript; {error.name} is not installed. {INSTALL}"
        ) from None
    module = Step(task).eval()
    x, state = inputs(task, 3, COMPARED), module.default_state(len(inputs(task, 3, 1)))
    batch = torch.export.Dim("batch", min=1)
    names = [f"state_{i}" for i in range(len(state))]
    program: Any = torch.onnx.export(
        module, (x[:, 0], state), dynamo=True, verbose=False, optimize=True,
        input_names=["x", *names], output_names=["y", *(f"next_{name}" for name in names)],
        dynamic_shapes=({0: batch}, [{0: batch} for _ in state]),
    )  # fmt: skip
    written = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    expected, theirs, found = task.default_state(len(x)), [part.numpy() for part in state], []
    exact = []
    for t in range(COMPARED):
        y, expected = task.step(x[:, t], expected)
        output, *theirs = session.run(None, dict(zip(["x", *names], [x[:, t].numpy(), *theirs], strict=True)))
        exact.append(y)
        found.append(torch.from_numpy(output))
    return written, _agree(STEP, torch.stack(found), torch.stack(exact))


def _whole(task: SequenceTask, length: int) -> tuple[bytes, float]:
    shortest = max(
        2, 1 + (task.decoder.l_tail if isinstance(task.decoder, TailPool) else task.hparams["l_output"] or 0)
    )
    if length <= shortest:
        raise ValueError(f"--length must be above {shortest}, what the decoder reads; got {length}.")
    largest = length | 1  # an even one may be the size of an array inside, a case of its own to torch.export
    shapes: dict[int, Any] = {}
    if all(block.pool.stride == 1 for block in task.model.layers):
        shapes[1] = torch.export.Dim("length", min=shortest, max=largest)
    if not isinstance(task.decoder, RetrievalDecoder):
        shapes[0] = torch.export.Dim("batch", min=1)
    x = inputs(task, 3, (shortest + length) // 2 if 1 in shapes else length)
    program = torch.export.export(Whole(task), (x,), dynamic_shapes=(shapes,))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    loaded = torch.export.load(io.BytesIO(buffer.getvalue())).module()
    x = inputs(task, 3, length)
    return buffer.getvalue(), _agree(WHOLE, loaded(x), task(x))


def _agree(name: str, found: Tensor, exact: Tensor) -> float:
    """The largest difference over the largest output; raise if it is more than rounding."""
    difference = ((found - exact).abs().max() / exact.abs().max()).item()
    if not difference < TOLERANCE:
        raise RuntimeError(
            f"{name} must compute what the model does, to {TOLERANCE:g} of its largest output; it is off by "
            f"{difference:.1e}, so nothing was written."
        )
    return difference
