"""HOPE: state-space layers parameterized by the Markov parameters of a Hankel matrix.

The public names are imported when first used; ``import hope_ssm`` itself loads neither torch nor Hydra nor Lightning.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "HopeBlock": "hope_ssm.layers.hope_block",
    "HopeClassifier": "hope_ssm.workbench.estimators",
    "HopeKernel": "hope_ssm.kernels.hope",
    "HopeLayer": "hope_ssm.layers.hope_layer",
    "HopeRegressor": "hope_ssm.workbench.estimators",
    "convolution_kernel": "hope_ssm.ops.convolution",
    "hankel_matrix": "hope_ssm.hankel",
    "hankel_singular_values": "hope_ssm.hankel",
    "load": "hope_ssm.workbench.evaluation",
    "parameter_groups": "hope_ssm.layers.parameter_groups",
    "transfer_function": "hope_ssm.ops.transfer",
}

__all__ = [
    "HopeBlock",
    "HopeClassifier",
    "HopeKernel",
    "HopeLayer",
    "HopeRegressor",
    "__version__",
    "convolution_kernel",
    "hankel_matrix",
    "hankel_singular_values",
    "load",
    "parameter_groups",
    "registry",
    "transfer_function",
]

if TYPE_CHECKING:
    from hope_ssm import registry
    from hope_ssm.hankel import hankel_matrix, hankel_singular_values
    from hope_ssm.kernels.hope import HopeKernel
    from hope_ssm.layers.hope_block import HopeBlock
    from hope_ssm.layers.hope_layer import HopeLayer
    from hope_ssm.layers.parameter_groups import parameter_groups
    from hope_ssm.ops.convolution import convolution_kernel
    from hope_ssm.ops.transfer import transfer_function
    from hope_ssm.workbench.estimators import HopeClassifier, HopeRegressor
    from hope_ssm.workbench.evaluation import load


def __getattr__(name: str) -> Any:
    if name == "registry":
        return importlib.import_module("hope_ssm.registry")
    if name in _HOME:
        try:
            return getattr(importlib.import_module(_HOME[name]), name)
        except ModuleNotFoundError as error:
            from hope_ssm.extras import explained

            raise ImportError(explained(error, f"hope_ssm.{name} needs") or str(error)) from error
    raise AttributeError(f"module 'hope_ssm' has no attribute {name!r}; its public names are {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return sorted(__all__)
