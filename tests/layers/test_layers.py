"""The convolution layer, the block and the backbone against explicit loops and against themselves step by step."""

from __future__ import annotations

import pytest
import torch

from hope_ssm.layers.fftconv import FFTConvolution
from hope_ssm.layers.pointwise import TiedDropout
from hope_ssm.layers.s4block import S4Block
from hope_ssm.workbench.models.backbone import SequenceModel
from kernel_cases import KINDS

LENGTH = 11


def direct(layer: FFTConvolution, x: torch.Tensor) -> torch.Tensor:
    """y_t = Σ_s k_{t-s} x_s + D x_t (+ Σ_{s>t} k'_{s-t-1} x_s) by a double loop; (B, L, H) to (B, L, C·H)."""
    k, _ = layer.kernel(L=min(LENGTH, layer.l_max or LENGTH))
    forward, reverse = k.tensor_split(2) if layer.bidirectional else (k, None)
    y = torch.einsum("blh,ch->blch", x, layer.D)
    for t in range(LENGTH):
        for s in range(LENGTH):
            lag = t - s
            if 0 <= lag < k.shape[-1]:
                y[:, t] += forward[..., lag] * x[:, s, None]
            elif reverse is not None and 0 <= -lag - 1 < k.shape[-1]:
                y[:, t] += reverse[..., -lag - 1] * x[:, s, None]
    return y.flatten(2)


@pytest.mark.parametrize("kernel", KINDS)
@pytest.mark.parametrize("options", [{}, {"channels": 2}, {"bidirectional": True}, {"l_max": 5}, {"l_max": 50}])
def test_convolution_equals_a_double_loop(kernel, options):
    layer = FFTConvolution(3, kernel, d_state=6, **options).double()
    x = torch.randn(2, LENGTH, 3, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(layer(x)[0], direct(layer, x), rtol=1e-12, atol=1e-12)


def test_bidirectional_with_a_short_kernel():
    layer = FFTConvolution(3, "hope", d_state=6, bidirectional=True, l_max=4).double()
    x = torch.randn(2, LENGTH, 3, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(layer(x)[0], direct(layer, x), rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KINDS)
@pytest.mark.parametrize(("prenorm", "norm"), [(True, "layer"), (False, "layer"), (False, "batch"), (True, None)])
def test_backbone_whole_in_chunks_and_in_steps(kernel, prenorm, norm):
    layer = {"_name_": "s4", "mode": kernel, "d_state": 6}
    model = SequenceModel(4, layer, n_layers=2, prenorm=prenorm, norm=norm).double().eval()
    x = torch.randn(2, LENGTH, 4, dtype=torch.float64)
    with torch.no_grad():
        whole, _ = model(x)
        state, chunks = model.default_state(2), []
        state = [s.to(torch.complex128 if s.is_complex() else torch.float64) for s in state]
        steps_state = list(state)
        for chunk in x.split([1, 4, 6], dim=1):
            y, state = model(chunk, state)
            chunks.append(y)
        steps = []
        for t in range(LENGTH):
            y, steps_state = model.step(x[:, t], steps_state)
            steps.append(y)
    torch.testing.assert_close(torch.cat(chunks, 1), whole, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(torch.stack(steps, 1), whole, rtol=1e-10, atol=1e-10)


def test_tied_dropout_drops_a_feature_at_all_steps():
    torch.manual_seed(0)
    y = TiedDropout(0.5)(torch.ones(3, 7, 64))
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert (y == y[:, :1]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": None}, "named by mode or by kernel, not both; got mode=None, kernel=None"),
        ({"mode": "hope", "kernel": "hope"}, "named by mode or by kernel, not both"),
        ({"mode": "hop"}, "kernel must be one of .*; got 'hop'. Did you mean 'hope'"),
        ({"mode": "hope", "activation": "gel"}, "activation must be one of .* Did you mean 'gelu'"),
        ({"mode": "hope", "dropout": 1.0}, "dropout must be at least 0 and below 1; got 1.0"),
        (
            {"mode": "hope", "final_act": None, "channels": 2},
            r"final_act must not be null where the block is 8 features .*channels=2",
        ),
    ],
)
def test_block_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        S4Block(4, **options)


def test_layer_refuses_wrong_shapes_and_states():
    layer = FFTConvolution(4, "hope", d_state=6)
    with pytest.raises(ValueError, match=r"must have shape \(batch, length, 4\); got \(2, 5, 3\)"):
        layer(torch.zeros(2, 5, 3))
    both = FFTConvolution(4, "hope", d_state=6, bidirectional=True)
    with pytest.raises(ValueError, match="without a state"):
        both(torch.zeros(2, 5, 4), both.default_state(2))
    with pytest.raises(ValueError, match="no recurrent mode"):
        both.step(torch.zeros(2, 4), both.default_state(2))
