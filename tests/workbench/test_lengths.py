"""Padded batches: each sequence as if it were alone; and the two directions of a bidirectional layer."""

from __future__ import annotations

import math

import pytest
import torch

from hope_ssm.layers.fftconv import FFTConvolution
from hope_ssm.layers.tail_pool import TailPool
from hope_ssm.workbench.models.backbone import SequenceModel
from hope_ssm.workbench.models.coders import LinearEncoder, SequenceDecoder
from hope_ssm.workbench.models.norms import BatchNorm
from kernel_cases import KINDS

LENGTHS = torch.tensor([7, 1, 11, 7, 4])
PADDED = 11


class Classifier(torch.nn.Module):
    def __init__(self, decoder, norm="layer", prenorm=True, **layer):
        super().__init__()
        self.encoder = LinearEncoder(2, 4)
        layer = {"_name_": "s4", "mode": "hope", "d_state": 6} | layer
        self.model = SequenceModel(4, layer, n_layers=2, prenorm=prenorm, norm=norm)
        self.decoder = decoder

    def forward(self, x, lengths=None):
        y, _ = self.model(self.encoder(x, lengths), lengths=lengths)
        return self.decoder(y, lengths=lengths), y


def padded(filling, features=2):
    x = torch.randn(len(LENGTHS), PADDED, features, dtype=torch.float64)
    for row, length in zip(x, LENGTHS, strict=True):
        row[length:] = filling
    return x


def randomized(model):
    """Running statistics of batch norms that are not 0 and 1."""
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model.double().eval()


@pytest.mark.parametrize("mode", ["last", "pool", "tail"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(
    ("kernel", "norm", "prenorm"),
    [("hope", "layer", True), ("hope", "batch", False), ("s4d", "batch", True), ("s4d", None, False)],
)
def test_a_padded_batch_is_its_sequences_one_by_one(mode, bidirectional, kernel, norm, prenorm):
    """From encoder to pool, outputs and gradients, whatever the padding holds."""
    decoder = TailPool(4, 3, l_tail=1) if mode == "tail" else SequenceDecoder(4, 3, mode)
    model = randomized(Classifier(decoder, norm, prenorm, mode=kernel, bidirectional=bidirectional))
    x = padded(math.nan)
    out, y = model(x, LENGTHS)
    together = torch.autograd.grad(out.square().sum(), list(model.parameters()))
    alone = [model(row[None, :length]) for row, length in zip(x, LENGTHS, strict=True)]
    torch.testing.assert_close(out, torch.cat([a for a, _ in alone]), rtol=1e-11, atol=1e-11)
    for row, length, (_, own) in zip(y, LENGTHS, alone, strict=True):
        torch.testing.assert_close(row[:length], own[0], rtol=1e-11, atol=1e-11)
        assert not row[length:].any()
    apart = torch.autograd.grad(torch.cat([a for a, _ in alone]).square().sum(), list(model.parameters()))
    for value, exact in zip(together, apart, strict=True):
        torch.testing.assert_close(value, exact, rtol=1e-9, atol=1e-9)


def test_without_lengths_the_padding_would_leak():
    model = randomized(Classifier(SequenceDecoder(4, 3, "pool"), bidirectional=True))
    assert not torch.allclose(model(padded(0.0))[0], model(padded(0.0), LENGTHS)[0])


def test_the_tail_is_that_before_the_padding():
    x, lengths = torch.randn(2, 9, 3), torch.tensor([9, 5])
    pooled = TailPool(3, None, l_tail=4)(x, lengths=lengths)
    torch.testing.assert_close(pooled, torch.stack([x[0, 5:].mean(0), x[1, 1:5].mean(0)]))
    with pytest.raises(ValueError, match="at least l_tail=4 steps; got 3"):
        TailPool(3, None, l_tail=4)(x, lengths=torch.tensor([9, 3]))


def test_batch_norm_in_training_counts_no_padding():
    norm, whole = BatchNorm(4).double(), BatchNorm(4).double()
    x = padded(1e9, 4)
    valid = torch.arange(PADDED) < LENGTHS[:, None]
    torch.testing.assert_close(norm(x, valid)[valid], whole(x[valid]))
    torch.testing.assert_close(norm.running_var, whole.running_var)
    assert not norm(x, valid)[~valid].any()


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KINDS)
@pytest.mark.parametrize("lengths", [[7, 1, 11, 7, 4], [5, 5, 5, 5, 5], [11, 11, 11, 11, 11]])
def test_the_state_is_the_one_after_each_sequence(kernel, lengths):
    """And its gradient; the next chunk goes on from there."""
    layer = {"_name_": "s4", "mode": kernel, "d_state": 6}
    model = SequenceModel(4, layer, n_layers=2).double().eval()
    x, following = torch.randn(2, 5, PADDED, 4, dtype=torch.float64)
    state, lengths = model.default_state(5), torch.tensor(lengths)
    state = [(s + torch.randn_like(s)).requires_grad_() for s in state]
    _, after = model(x, state, lengths=lengths)
    y, _ = model(following, after)
    together = torch.autograd.grad(y.square().sum(), state)
    outputs = []
    for row, length in enumerate(lengths.tolist()):
        own = [s[row : row + 1] for s in state]
        _, own = model(x[row : row + 1, :length], own)
        for value, exact in zip(after, own, strict=True):
            torch.testing.assert_close(value[row : row + 1], exact, rtol=1e-10, atol=1e-10)
        outputs.append(model(following[row : row + 1], own)[0])
    torch.testing.assert_close(y, torch.cat(outputs), rtol=1e-10, atol=1e-10)
    apart = torch.autograd.grad(torch.cat(outputs).square().sum(), state)
    for value, exact in zip(together, apart, strict=True):
        torch.testing.assert_close(value, exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_lengths_of_any_whole_number_type(dtype):
    model = randomized(Classifier(SequenceDecoder(4, 3, "pool")))
    x = padded(0.0)
    torch.testing.assert_close(model(x, LENGTHS.to(dtype))[0], model(x, LENGTHS)[0], rtol=0, atol=0)


WANTED = r"^lengths must be a tensor of 5 whole numbers, one per sequence, from 1 to 11; got "


@pytest.mark.parametrize(
    ("lengths", "error", "got"),
    [
        (torch.tensor([7, 1, 12, 7, 4]), ValueError, "12"),
        (torch.tensor([7, 0, 11, 7, 4]), ValueError, "0"),
        (torch.tensor([7, -3, 11, 7, 4]), ValueError, "-3"),
        (torch.tensor([7, 1, 11]), ValueError, r"shape \(3,\)"),
        (torch.tensor([7]), ValueError, r"shape \(1,\)"),
        (torch.tensor(7), ValueError, r"shape \(\)"),
        (torch.tensor([[7, 1, 11, 7, 4]]), ValueError, r"shape \(1, 5\)"),
        (LENGTHS.float(), TypeError, r"torch.float32\. Convert with \.long\(\)"),
        (LENGTHS > 3, TypeError, "torch.bool"),
        ([7, 1, 11, 7, 4], TypeError, "list"),
        (7, TypeError, "int"),
    ],
)
def test_lengths_that_are_refused(lengths, error, got):
    model, x = SequenceModel(4, {"_name_": "s4", "mode": "hope", "d_state": 6}), torch.zeros(5, PADDED, 4)
    decoders = (SequenceDecoder(4, 3, "pool"), SequenceDecoder(4, 3, "last"), TailPool(4, 3, l_tail=1))
    for part in (model, model.layers[0].layer, model.layers[0].layer.layer, *decoders, LinearEncoder(4, 4)):
        with pytest.raises(error, match=WANTED + got):
            part(x, lengths=lengths)


# Both directions


@pytest.mark.parametrize("kernel", KINDS)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("l_max", [None, 1, 4, 50])
@pytest.mark.parametrize("lag", [-1, 0])
def test_both_directions_are_two_convolutions(kernel, channels, l_max, lag):
    """The first kernel on x, the second on x backwards: from the present step on, or from the next (the host's)."""
    layer = FFTConvolution(
        3, kernel, d_state=6, channels=channels, bidirectional=True, l_max=l_max, reverse_lag=lag
    ).double()
    x = torch.randn(2, 3, PADDED, dtype=torch.float64)
    with torch.no_grad():
        forward, reverse = layer.kernel(L=min(PADDED, l_max or PADDED))[0].tensor_split(2)
        expected = torch.einsum("bhl,ch->bchl", x, layer.D)
        for t in range(PADDED):
            for s in range(PADDED):
                if 0 <= t - s < forward.shape[-1]:
                    expected[..., t] += forward[..., t - s] * x[:, None, :, s]
                if 0 <= s - t + lag < reverse.shape[-1]:
                    expected[..., t] += reverse[..., s - t + lag] * x[:, None, :, s]
        y, state = layer(x.transpose(1, 2))
    assert state is None
    torch.testing.assert_close(y, expected.flatten(1, 2).transpose(1, 2), rtol=1e-12, atol=1e-12)


def test_the_lag_of_the_host_is_the_default():
    assert FFTConvolution(3, "hope", bidirectional=True).reverse_lag == -1
    with pytest.raises(ValueError, match=r"^reverse_lag must be one of -1, 0; got 1\."):
        FFTConvolution(3, "hope", bidirectional=True, reverse_lag=1)
