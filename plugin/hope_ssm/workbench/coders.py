"""Encoders, from data to the backbone, and decoders, from the backbone to the prediction."""

from __future__ import annotations

from torch import Tensor, nn

from hope_ssm.checks import check_choice, check_lengths
from hope_ssm.datasets.noise_tail import TailPool
from hope_ssm.workbench.convolution import without_padding

POOLS = ("pool", "last")


class LinearEncoder(nn.Linear):
    """x ↦ W x + b, (B, L, d_input) to (B, L, H)."""

    def __init__(self, d_input: int, d_model: int) -> None:
        super().__init__(d_input, d_model)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Encode, with zeros in place of padding; a data set with another number of input features is refused."""
        if x.shape[-1] != self.in_features:
            raise ValueError(f"the input must have {self.in_features} features a step; got shape {tuple(x.shape)}.")
        return super().forward(without_padding(x, lengths))


class SequenceDecoder(nn.Module):
    """Mean over all steps (``mode="pool"``) or the last step (``"last"``), then a linear map; (B, L, H) to (B, d).

    Of a sequence in a padded batch, its own steps alone. Args: d_model: H; d_output: d; mode: see above.
    """

    def __init__(self, d_model: int, d_output: int, mode: str = "last") -> None:
        super().__init__()
        self.mode = check_choice("decoder.mode", mode, POOLS)
        self.output_transform = nn.Linear(d_model, d_output)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Decode; ``lengths`` (B,) of the sequences if they differ."""
        if lengths is None:
            return self.output_transform(x.mean(1) if self.mode == "pool" else x[:, -1])
        lengths = check_lengths(lengths, *x.shape[:2]).to(x.device).long().unsqueeze(-1)
        if self.mode == "last":
            return self.output_transform(x.take_along_dim(lengths.unsqueeze(-1) - 1, 1).squeeze(1))
        return self.output_transform(without_padding(x, lengths.squeeze(-1)).sum(1) / lengths)


ENCODERS = {"linear": LinearEncoder}
DECODERS = {"sequence": SequenceDecoder, "tail_pool": TailPool}
