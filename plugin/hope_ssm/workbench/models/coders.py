"""Encoders, from data to the backbone, and decoders, from the backbone to the prediction.

Axes: B batch, L steps, H features of the backbone. Where a batch is padded, ``lengths`` (B,) end its sequences; what
stands after the ends changes nothing.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from hope_ssm.checks import check_choice, check_flag, check_lengths, check_positive_integer
from hope_ssm.layers.padding import without_padding
from hope_ssm.layers.tail_pool import TailPool

MODES = ("last", "first", "pool", "sum")


class LinearEncoder(nn.Linear):
    """x ↦ W x + b, (B, L, d_input) to (B, L, H)."""

    def __init__(self, d_input: int, d_model: int) -> None:
        super().__init__(d_input, d_model)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Encode, padding as if 0 stood there; a data set with another number of input features is refused."""
        if not x.is_floating_point():
            raise TypeError(f"the linear encoder takes real numbers; got {x.dtype}. For tokens set encoder=embedding.")
        if x.shape[-1] != self.in_features:
            raise ValueError(f"the input must have {self.in_features} features per step; got shape {tuple(x.shape)}.")
        return super().forward(without_padding(x, lengths))


def check_tokens(encoder: str, x: Tensor) -> Tensor:
    """Return x if it is tokens (B, L), whole numbers; otherwise raise."""
    if x.is_floating_point() or x.ndim != 2:
        raise TypeError(
            f"the encoder {encoder} takes tokens, whole numbers (batch, length); got {x.dtype} of shape "
            f"{tuple(x.shape)}. For vectors of real numbers set encoder=linear."
        )
    return x


class EmbeddingEncoder(nn.Embedding):
    """i ↦ e_i, one trained vector per token; (B, L) to (B, L, H)."""

    def __init__(self, n_tokens: int, d_model: int) -> None:
        super().__init__(check_vocabulary("embedding", n_tokens), d_model)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Encode."""
        return super().forward(check_tokens("embedding", x))


class OneHotEncoder(nn.Module):
    """i ↦ the i-th unit vector; (B, L) to (B, L, H) with H at least ``n_tokens``."""

    def __init__(self, n_tokens: int, d_model: int) -> None:
        super().__init__()
        if check_vocabulary("onehot", n_tokens) > d_model:
            raise ValueError(
                f"the encoder onehot needs model.d_model of at least the number of tokens, {n_tokens}; got {d_model}."
            )
        self.d_model = d_model

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Encode."""
        vectors = nn.functional.one_hot(check_tokens("onehot", x).long(), self.d_model)
        return vectors.to(torch.get_default_dtype())


class IdentityEncoder(nn.Module):
    """x ↦ x, where the data have the backbone's H features."""

    def __init__(self, d_input: int, d_model: int) -> None:
        super().__init__()
        if d_input != d_model:
            raise ValueError(f"the encoder id needs model.d_model={d_input}, as the data have; got {d_model}.")

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return x."""
        return x


def check_vocabulary(encoder: str, n_tokens: int | None) -> int:
    """Return ``n_tokens`` if the data set has tokens; otherwise raise."""
    if n_tokens is None:
        raise ValueError(f"the encoder {encoder} needs a data set of tokens; this one has none. Set encoder=linear.")
    return check_positive_integer("n_tokens", n_tokens)


class SequenceDecoder(nn.Module):
    """y_t = W z_t + b over some steps t;  z_t is x_t (``mode="last"`` or ``"first"``) or the mean or sum of x_1 … x_t.

    Args:
        d_model: H.
        d_output: numbers a prediction has.
        mode: ``"last"``, ``"first"``, ``"pool"`` (mean) or ``"sum"``.
        l_output: k for the last k steps, the first k of ``"first"``; 0 for one without the axis of steps; None for all.
        use_lengths: demand ``lengths``. Where there are any, they are used in any case.

    In a padded batch only the steps of the sequence itself count, and the last step is its own last.
    """

    def __init__(
        self, d_model: int, d_output: int, mode: str = "last", l_output: int | None = 0, use_lengths: bool = False
    ) -> None:
        super().__init__()
        self.mode = check_choice("decoder.mode", mode, MODES)
        self.l_output = l_output if not l_output else check_positive_integer("decoder.l_output", l_output)
        self.use_lengths = check_flag("decoder.use_lengths", use_lengths)
        self.output_transform: nn.Module = nn.Linear(d_model, d_output)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map (B, L, H) to (B, d_output) or (B, l_output, d_output)."""
        batch, longest = x.shape[:2]
        if lengths is None and self.use_lengths:
            raise ValueError("decoder.use_lengths needs lengths in a batch; got none. Give Splits(…, collate=pad).")
        x = without_padding(x, lengths)
        if self.l_output is None or (lengths is None and self.l_output == longest):
            return self.output_transform(self._of_every_step(x))
        n = self.l_output or 1
        shortest = longest if lengths is None else int(check_lengths(lengths, batch, longest).min())
        if shortest < n:
            raise ValueError(f"the sequence must have at least l_output={n} steps; got {shortest}.")
        if lengths is None:  # one slice of all sequences, of any length in torch.export too
            first = 0 if self.mode == "first" else longest - n
            z, steps = x[:, first : first + n], torch.arange(n, device=x.device) + first
        else:
            ends = lengths.to(x.device).long()
            starts = torch.zeros_like(ends) if self.mode == "first" else ends - n
            steps = starts.unsqueeze(-1) + torch.arange(n, device=x.device)
            z = x.take_along_dim(steps.unsqueeze(-1), 1)
        if self.mode in ("pool", "sum"):
            following = z.flip(1).cumsum(1).flip(1) - z
            z = x.sum(1, keepdim=True) - following
        if self.mode == "pool":
            z = z / (steps + 1).unsqueeze(-1)
        return self.output_transform(z.squeeze(1) if self.l_output == 0 else z)

    def _of_every_step(self, x: Tensor) -> Tensor:
        if self.mode in ("last", "first"):
            return x
        sums = x.cumsum(1)
        if self.mode == "sum":
            return sums
        return sums / torch.arange(1, x.shape[1] + 1, device=x.device, dtype=x.dtype).unsqueeze(-1)


class RetrievalDecoder(nn.Module):
    """y = W_2 σ(W_1 f + b_1) + b_2 of a pair (z, z'),  f = (z, z', z - z', z z');  z is ``SequenceDecoder``'s.

    Args:
        d_model: H.
        d_output: numbers a prediction has.
        d_hidden: features between the two maps; None: H.
        nli: f as above; false: f = (z, z'), and a third map with half as many features before it.
        activation: σ, ``"relu"`` or ``"gelu"``.
        mode: of ``SequenceDecoder``.
        use_lengths: of ``SequenceDecoder``.

    Source: with ``nli``, Y. Xiong et al., "Nyströmformer", AAAI 2021; without, Y. Tay et al., "Long Range Arena", 2021.
    """

    def __init__(
        self,
        d_model: int,
        d_output: int,
        d_hidden: int | None = None,
        nli: bool = True,
        activation: str = "relu",
        mode: str = "last",
        use_lengths: bool = False,
    ) -> None:
        super().__init__()
        d_hidden = d_model if d_hidden is None else check_positive_integer("decoder.d_hidden", d_hidden)
        sigma = {"relu": nn.ReLU, "gelu": nn.GELU}[check_choice("decoder.activation", activation, ("relu", "gelu"))]
        self.feature = SequenceDecoder(d_model, d_output, mode, use_lengths=use_lengths)
        self.feature.output_transform = nn.Identity()
        self.nli = check_flag("decoder.nli", nli)
        sizes = [4 * d_model, d_hidden] if nli else [2 * d_model, d_hidden, max(1, d_hidden // 2)]
        maps = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), sigma())]
        self.classifier = nn.Sequential(*maps, nn.Linear(sizes[-1], d_output))

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map (2B, L, H), first the one sequence of all pairs and then the other, to (B, d_output)."""
        if len(x) % 2:
            raise ValueError(f"the decoder retrieval needs two sequences per sample; got {len(x)} in a batch.")
        return self.compare(self.feature(x, lengths))

    def compare(self, z: Tensor) -> Tensor:
        """Map features (2B, …, H) of all first sequences, then of all second ones, to (B, …, d_output)."""
        first, second = z.chunk(2)
        both = [first, second, first - second, first * second] if self.nli else [first, second]
        return self.classifier(torch.cat(both, -1))


ENCODERS = {
    "linear": LinearEncoder,
    "embedding": EmbeddingEncoder,
    "onehot": OneHotEncoder,
    "id": IdentityEncoder,
}
DECODERS = {"sequence": SequenceDecoder, "tail_pool": TailPool, "retrieval": RetrievalDecoder}
