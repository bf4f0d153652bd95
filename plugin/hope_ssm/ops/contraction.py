"""Contractions of three and more tensors. (Those of two are torch's own.)"""

from __future__ import annotations

import opt_einsum
import torch
from torch import Tensor

from hope_ssm.ops.transforms import recorded


def einsum(equation: str, *tensors: Tensor) -> Tensor:
    """Sum of products over the indices that the result lacks, in the order that opt_einsum finds cheapest.

    No recorder can look into opt_einsum; while one records, torch.einsum takes the same equation.

    Args:
        equation: as of ``torch.einsum``.
        *tensors: one per term.
    """
    return (torch.einsum if recorded() else opt_einsum.contract)(equation, *tensors)
