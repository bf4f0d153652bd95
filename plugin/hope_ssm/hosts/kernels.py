"""The host's own kernels and layers, for the benchmark: S4 and S4D with each of the host's ways to evaluate them."""

from __future__ import annotations

import importlib
import logging

from torch import nn

from hope_ssm.hosts.state_spaces import HOME, find_host, make_importable, register_kernels, register_layers

# name → class in the host, its initialization, its backend
HOST_KERNELS = {
    f"host-{kind}-{backend}": (cls, init, backend)
    for kind, cls, init in (("s4d", "SSMKernelDiag", "diag-lin"), ("s4", "SSMKernelDPLR", "legs"))
    for backend in ("naive", "keops", "cuda")
}
# kernel and convolution → the kernel's mode in the host, its inner layer, options of the kernel
HOST_LAYERS = {
    f"{mode}{ending}": (mode, layer, options)
    for mode, options in (
        ("hope", {}),
        ("diag", {"backend": "naive", "init": "diag-lin"}),
        ("nplr", {"backend": "naive"}),
    )
    for ending, layer in (("", "fftconv"), ("-grouped", "grouped_fftconv"))
}
_FLAGS = {"naive": None, "keops": "has_pykeops", "cuda": "has_cuda_extension"}


def host_kernel(name: str, features: int, states: int, device: str, backend: str | None = None) -> nn.Module:
    """Return the host's kernel called ``name``, one of ``HOST_KERNELS``, of any length.

    Raises:
        ImportError: no host, or without what this backend needs; the host's KeOps formulas need a GPU.
    """
    cls, init, own = HOST_KERNELS[name]
    _import_host()
    module = importlib.import_module("src.models.sequence.kernels.ssm")
    backend = own if backend is None else backend
    flag = _FLAGS[backend]
    if flag and not getattr(module, flag):
        raise ImportError(f"the host found no {'pykeops' if backend == 'keops' else 'CUDA extension'}")
    if backend != "naive" and device == "cpu":
        raise ImportError(f"the host's {backend} formulas run on a GPU only")
    return getattr(module, cls)(
        d_model=features, d_state=states, l_max=None, channels=1, init=init, backend=backend, verbose=False
    )


def host_layer(name: str, features: int, states: int) -> nn.Module:
    """Return the host's convolution layer, (B, L, H) to the same and a state, as one of ``HOST_LAYERS`` says.

    Raises:
        ImportError: no host, or without what it imports.
    """
    mode, inner, options = HOST_LAYERS[name]
    _import_host()
    layers = importlib.import_module("src.utils.registry").layer
    place, cls = layers[inner].rsplit(".", 1)
    layer = getattr(importlib.import_module(place), cls)
    return layer(features, transposed=False, mode=mode, d_state=states, verbose=False, **options)


def host_model(name: str, features: int, states: int) -> nn.Module:
    """Return the host's backbone with one S4 layer, norm and residual, as one of ``HOST_LAYERS`` says.

    Raises:
        ImportError: no host, or without what it imports.
    """
    mode, inner, options = HOST_LAYERS[name]
    _import_host()
    backbone = importlib.import_module("src.models.sequence.backbones.model").SequenceModel
    layer = {"_name_": "s4", "mode": mode, "layer": inner, "d_state": states, "final_act": "glu", "verbose": False}
    return backbone(features, layer=layer | options, residual="R", norm="layer", track_norms=False)


def _import_host() -> None:
    if find_host() is None:
        raise ImportError(f"{HOME} is not set to a checkout of state-spaces/s4")
    make_importable()
    logging.getLogger("src").setLevel(logging.ERROR)
    register_kernels(importlib.import_module("src.models.sequence.kernels"))
    register_layers(importlib.import_module("src.utils.registry"))
