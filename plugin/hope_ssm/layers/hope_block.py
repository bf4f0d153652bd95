"""HOPE in the place of a one-file S4 layer. Axes: B batch, H features, L steps."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hope_ssm.layers.hope_layer import HopeLayer


class HopeBlock(HopeLayer):
    """(B, H, L) to ((B, H, L), state): the calls of the S4Block and S4D layers that many projects copy into one file.

    ``from hope_ssm import HopeBlock as S4D`` in the place of ``from models.s4.s4d import S4D``, or of ``S4Block``, and
    the rest of the model stays.

    Args:
        d_model: H.
        transposed: whether the features come before the steps; otherwise (B, L, H).
        **options: see ``HopeLayer``. A number for ``lr`` rules the Markov parameters too; ``lr={"dt": 0.001}``
            leaves them at the optimizer's own rate, where they usually train best.
    """

    def __init__(self, d_model: int, *, transposed: bool = True, **options: Any) -> None:
        super().__init__(d_model, **options)
        self.transposed = transposed
        self.d_output = d_model

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        *,
        state: Tensor | None = None,
        rate: float = 1.0,
        step_scale: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Map whole sequences, or a chunk that follows ``state``.

        Args:
            x: (B, H, L), or (B, L, H) if not ``transposed``.
            lengths: see ``HopeLayer.forward``.
            state: see there.
            rate: see there.
            step_scale: see there.

        Returns:
            the same shape, and the state after the last step, None without ``state``.
        """
        y = super().forward(x.mT if self.transposed else x, lengths, state=state, rate=rate, step_scale=step_scale)
        y, after = (y, None) if isinstance(y, Tensor) else y
        return (y.mT if self.transposed else y), after
