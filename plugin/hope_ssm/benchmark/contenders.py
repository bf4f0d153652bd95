"""The contenders that are timed. Each is made for given sizes, device and dtype, and knows what its result must be."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hope_ssm import registry
from hope_ssm.benchmark.published import algorithm_1
from hope_ssm.checks import check_choice
from hope_ssm.hosts.kernels import HOST_KERNELS, HOST_LAYERS, host_kernel, host_layer, host_model
from hope_ssm.layers.fftconv import FFTConvolution
from hope_ssm.ops import backends
from hope_ssm.ops.convolution import convolution_kernel
from hope_ssm.ops.long_convolution import MODES, long_convolution
from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.models.backbone import SequenceModel
from hope_ssm.workbench.training import train

CHECKED_FEATURES, CHECKED_STEPS = 4, 1024
KERNELS = ("hope", "s4d", "s4")
TRAINING = (
    "experiment=hope/noisy-digits", "decoder.l_tail=32", "trainer.max_epochs=4", "trainer.accelerator=cpu",
    "++trainer.enable_progress_bar=false",
)  # fmt: skip
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Sizes:
    """H features, n real states (or Markov parameters), L samples, B sequences, and where and in what to compute."""

    features: int = 256
    states: int = 64
    length: int = 4096
    batch: int = 16
    device: str = "cpu"
    dtype: str = "float32"

    @property
    def placement(self) -> dict:
        """Return device and dtype, for torch."""
        return {"device": self.device, "dtype": DTYPES[self.dtype]}


@dataclass
class Contender:
    """What is timed.

    Args:
        forward: () → the result.
        inputs: what the backward pass differentiates by; empty for a whole training step, which is timed as it is.
        reference: () → float64 numbers that the result must begin with, feature by feature, or None.
    """

    forward: Callable[[], Tensor]
    inputs: list[Tensor]
    reference: Callable[[], Tensor] | None = None


def _kernel(name: str, sizes: Sizes, **options: str | float) -> nn.Module:
    torch.manual_seed(0)
    kernel = registry.get(name)(d_model=sizes.features, d_state=sizes.states, verbose=False, **options)
    return kernel.to(**sizes.placement)


def _hope(backend: str, sizes: Sizes) -> Contender:
    kernel = _kernel("hope", sizes, backend=backend)
    backends.get(backend, torch.device(sizes.device))

    def reference() -> Tensor:
        h, dt = _system(kernel)
        return convolution_kernel(h, dt, sizes.length, backend="dense")

    return Contender(lambda: kernel(L=sizes.length)[0][0], list(kernel.parameters()), reference)


def _system(kernel: Any) -> tuple[Tensor, Tensor]:
    """(h, Δt) of the first features of a HOPE kernel as they stand, in float64."""
    h, dt = kernel.markov_parameters[0, :CHECKED_FEATURES], kernel.sampling_period[:CHECKED_FEATURES]
    return h.detach().double(), dt.detach().double()


def _published(sizes: Sizes) -> Contender:
    kernel: Any = _kernel("hope", sizes)

    def forward() -> Tensor:
        return algorithm_1(kernel.markov_parameters[0], kernel.sampling_period, sizes.length)

    def reference() -> Tensor:
        return convolution_kernel(*_system(kernel), sizes.length, truncation="none", backend="dense")

    return Contender(forward, list(kernel.parameters()), reference)


def _stepped(name: str, sizes: Sizes, **options: str | float) -> Contender:
    """A kernel that its own steps check."""
    kernel = _kernel(name, sizes, **options)
    return Contender(
        lambda: kernel(L=sizes.length)[0][0], list(kernel.parameters()), partial(_impulse_response, kernel, sizes)
    )


@torch.no_grad()
def _impulse_response(kernel: Any, sizes: Sizes) -> Tensor:
    """The first samples of the kernel by its recurrence in float64, one step at a time."""
    exact = copy.deepcopy(kernel).double()
    state, outputs = exact.default_state(1), []
    for t in range(min(sizes.length, CHECKED_STEPS)):
        u = torch.full((1, sizes.features), float(t == 0), dtype=torch.float64, device=sizes.device)
        y, state = exact.step(u, state)
        outputs.append(y[0, 0, :CHECKED_FEATURES])
    return torch.stack(outputs, dim=-1)


def _host(name: str, sizes: Sizes) -> Contender:
    torch.manual_seed(0)
    kernel = host_kernel(name, sizes.features, sizes.states, sizes.device).to(**sizes.placement)

    def reference() -> Tensor:
        exact = host_kernel(name, sizes.features, sizes.states, sizes.device, backend="naive").double()
        exact.load_state_dict(kernel.state_dict())
        with torch.no_grad():
            return exact(L=sizes.length)[0][0, :CHECKED_FEATURES]

    kernel(L=sizes.length)  # the host's S4 transforms C in its first call, for this length
    return Contender(lambda: kernel(L=sizes.length)[0][0], list(kernel.parameters()), reference)


def _convolution(mode: str, sizes: Sizes) -> Contender:
    """The layer's FFT convolution alone: both operands given, the steps of the input first as in the layer."""
    torch.manual_seed(0)
    x = torch.randn(sizes.batch, sizes.length, sizes.features, **sizes.placement, requires_grad=True)
    k = torch.randn(1, sizes.features, sizes.length, **sizes.placement, requires_grad=True)

    def reference() -> Tensor:
        u, kernel = x[:1, :, :CHECKED_FEATURES].detach().double(), k[:, :CHECKED_FEATURES].detach().double()
        return long_convolution(u.transpose(1, 2), kernel, mode="plain")[0, 0]

    return Contender(lambda: long_convolution(x.transpose(1, 2), k, mode=mode).squeeze(1), [x, k], reference)


def _copy(sizes: Sizes) -> Contender:
    """A copy of the layer's input: what moving these bytes once costs, the ceiling of everything that follows."""
    x = torch.randn(sizes.batch, sizes.length, sizes.features, **sizes.placement, requires_grad=True)
    return Contender(lambda: x.clone().transpose(1, 2), [x], lambda: x[0, :, :CHECKED_FEATURES].detach().double().T)


def _layer(name: str, convolution: str, sizes: Sizes) -> Contender:
    torch.manual_seed(0)
    layer = FFTConvolution(sizes.features, name, convolution=convolution, d_state=sizes.states, verbose=False)
    layer.to(**sizes.placement)
    x = torch.randn(sizes.batch, sizes.length, sizes.features, **sizes.placement, requires_grad=True)

    @torch.no_grad()
    def reference() -> Tensor:
        exact = copy.deepcopy(layer).double()
        exact.convolution = "plain"
        return exact(x[:1].double())[0][0, :, :CHECKED_FEATURES].T

    return Contender(lambda: layer(x)[0].transpose(1, 2), [x, *layer.parameters()], reference)


def _host_layer(name: str, sizes: Sizes) -> Contender:
    torch.manual_seed(0)
    layer = host_layer(name, sizes.features, sizes.states).to(**sizes.placement)
    x = torch.randn(sizes.batch, sizes.length, sizes.features, **sizes.placement, requires_grad=True)
    layer(x)  # the host's S4 transforms C in its first call, for this length
    return Contender(lambda: layer(x)[0].transpose(1, 2), [x, *layer.parameters()])


def _training_step(name: str, convolution: str, sizes: Sizes) -> Contender:
    """One layer with its block, norm and optimizer: forward, backward and update."""
    torch.manual_seed(0)
    layer = {"_name_": "s4", "mode": name, "d_state": sizes.states, "verbose": False, "convolution": convolution}
    return _step_of(SequenceModel(sizes.features, layer), sizes)


def _host_step(name: str, sizes: Sizes) -> Contender:
    """The same of the host's own backbone."""
    torch.manual_seed(0)
    return _step_of(host_model(name, sizes.features, sizes.states), sizes)


def _training(convolution: str, sizes: Sizes) -> Contender:
    """Four epochs of the demo's model, from the data to the test; with freed memory kept, from here on."""
    if sizes.device != "cpu":
        raise ImportError("the demo's model is trained on a CPU here")
    widths = [f"model.d_model={sizes.features}", f"model.layer.d_state={sizes.states}"]
    config = compose(
        [*TRAINING, *widths, f"loader.batch_size={sizes.batch}", f"+model.layer.convolution={convolution}"]
    )

    def run() -> Tensor:
        with tempfile.TemporaryDirectory() as directory:
            return torch.tensor(train(config, directory, callbacks=[]).metrics["test/loss"])

    return Contender(run, [])


def _step_of(model: nn.Module, sizes: Sizes) -> Contender:
    model.to(**sizes.placement)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    x = torch.randn(sizes.batch, sizes.length, sizes.features, **sizes.placement)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = model(x)[0].square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Contender(step, [])


CONTENDERS: dict[str, Callable[[Sizes], Contender]] = {
    **{f"hope-{name}": partial(_hope, name) for name in backends.MODULES},
    "algorithm-1": _published,
    "hope-bands": partial(_stepped, "hope-bands", banded_share=1.0),
    **{name: partial(_stepped, name) for name in KERNELS if name != "hope"},
    **{name: partial(_host, name) for name in HOST_KERNELS},
    "copy": _copy,
    **{f"host-layer-{name}": partial(_host_layer, name) for name in HOST_LAYERS},
    "convolution": partial(_convolution, "auto"),
    "convolution-plain": partial(_convolution, "plain"),
    **{f"layer-{name}": partial(_layer, name, "auto") for name in KERNELS},
    "layer-hope-plain": partial(_layer, "hope", "plain"),
    **{f"step-{name}": partial(_training_step, name, "auto") for name in KERNELS},
    **{f"step-hope-{mode}": partial(_training_step, "hope", mode) for mode in MODES[1:]},
    **{f"host-step-{name}": partial(_host_step, name) for name in HOST_LAYERS},
    "training-hope": partial(_training, "auto"),
    "training-hope-plain": partial(_training, "plain"),
}
# Those that take milliseconds, not minutes.
USUAL = tuple(name for name in CONTENDERS if not name.startswith("training-"))
# Numbers that forward + backward keeps for each of H·n·L, where it keeps so many, about (measured).
_KEPT = {"algorithm-1": 8, "hope-dense": 6, "host-s4d-naive": 4, "host-s4-naive": 21}


def check_memory(name: str, sizes: Sizes) -> None:
    """Raise ``MemoryError`` if the contender needs more memory than the machine has free."""
    place = Path("/proc/meminfo")
    if name not in _KEPT or sizes.device != "cpu" or not place.exists():
        return
    needed = _KEPT[name] * sizes.features * sizes.states * sizes.length * DTYPES[sizes.dtype].itemsize / 1e9
    free = next(int(line.split()[1]) for line in place.read_text().splitlines() if "MemAvailable" in line) / 1e6
    if needed > 0.9 * free:
        raise MemoryError(f"it needs about {needed:.0f} GB, and {free:.0f} GB are free. Lower --length or --features.")


def make(name: str, sizes: Sizes) -> Contender:
    """Return the contender called ``name``; ImportError where something it needs is absent."""
    check_choice("a contender", name, CONTENDERS)
    check_memory(name, sizes)
    return CONTENDERS[name](sizes)
