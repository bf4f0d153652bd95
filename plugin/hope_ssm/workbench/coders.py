"""Encoders, from data to the backbone, and decoders, from the backbone to the prediction."""

from __future__ import annotations

from torch import Tensor, nn

from hope_ssm.checks import check_choice
from hope_ssm.datasets.noise_tail import TailPool

POOLS = ("pool", "last")


class LinearEncoder(nn.Linear):
    """x ↦ W x + b, (B, L, d_input) to (B, L, H)."""

    def __init__(self, d_input: int, d_model: int) -> None:
        super().__init__(d_input, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Encode; a data set with another number of input features is refused."""
        if x.shape[-1] != self.in_features:
            raise ValueError(f"the input must have {self.in_features} features a step; got shape {tuple(x.shape)}.")
        return super().forward(x)


class SequenceDecoder(nn.Module):
    """Mean over all steps (``mode="pool"``) or the last step (``"last"``), then a linear map; (B, L, H) to (B, d).

    Args: d_model: H; d_output: d; mode: see above.
    """

    def __init__(self, d_model: int, d_output: int, mode: str = "last") -> None:
        super().__init__()
        self.mode = check_choice("decoder.mode", mode, POOLS)
        self.output_transform = nn.Linear(d_model, d_output)

    def forward(self, x: Tensor) -> Tensor:
        """Decode."""
        return self.output_transform(x.mean(1) if self.mode == "pool" else x[:, -1])


ENCODERS = {"linear": LinearEncoder}
DECODERS = {"sequence": SequenceDecoder, "tail_pool": TailPool}
