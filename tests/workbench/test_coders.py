"""Encoders and decoders against loops over sequences and steps, with and without padding."""

from __future__ import annotations

import math

import pytest
import torch

from hope_ssm.workbench.models.coders import (
    DECODERS,
    EmbeddingEncoder,
    IdentityEncoder,
    LinearEncoder,
    OneHotEncoder,
    SequenceDecoder,
)

LENGTHS = torch.tensor([7, 3, 5, 9])
B, L, H = 4, 9, 5


def one_by_one(decoder, x, lengths):
    """The definition: y_t = W z_t + b, sequence by sequence and step by step."""
    outputs = []
    for row, length in zip(x, lengths.tolist(), strict=True):
        k = length if decoder.l_output is None else max(decoder.l_output, 1)
        steps = range(k) if decoder.mode == "first" else range(length - k, length)
        of = {
            "last": lambda t, row=row: row[t],
            "first": lambda t, row=row: row[t],
            "pool": lambda t, row=row: row[: t + 1].mean(0),
            "sum": lambda t, row=row: row[: t + 1].sum(0),
        }[decoder.mode]
        y = decoder.output_transform(torch.stack([of(t) for t in steps]))
        outputs.append(y.squeeze(0) if decoder.l_output == 0 else y)
    return outputs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mode", ["last", "first", "pool", "sum"])
@pytest.mark.parametrize("l_output", [0, 1, 2, 3, None])
@pytest.mark.parametrize("padded", [False, True])
def test_the_decoder_is_its_definition(mode, l_output, padded, dtype):
    decoder = SequenceDecoder(H, 2, mode, l_output).to(dtype)
    x = torch.randn(B, L, H, dtype=dtype)
    lengths = LENGTHS if padded else torch.full((B,), L)
    filled = x.clone()
    if padded:
        for row, length in zip(filled, LENGTHS, strict=True):
            row[length:] = math.nan
    y = decoder(filled, lengths if padded else None)
    assert y.dtype == dtype
    assert y.shape == {0: (B, 2), None: (B, L, 2)}.get(l_output, (B, l_output, 2))
    for ours, expected, length in zip(y, one_by_one(decoder, x, lengths), lengths, strict=True):
        own = ours[:length] if l_output is None else ours
        torch.testing.assert_close(
            own, expected, rtol=16 * L * torch.finfo(dtype).eps, atol=16 * torch.finfo(dtype).eps
        )


def test_as_many_steps_as_there_are_is_every_step():
    decoder = SequenceDecoder(H, 2, "pool", L)
    x = torch.randn(B, L, H)
    torch.testing.assert_close(decoder(x), torch.stack(one_by_one(decoder, x, torch.full((B,), L))))


@pytest.mark.parametrize(
    ("decoder", "lengths", "message"),
    [
        (SequenceDecoder(H, 2, "last", 10), None, r"at least l_output=10 steps; got 9\."),
        (SequenceDecoder(H, 2, "first", 4), LENGTHS, r"at least l_output=4 steps; got 3\."),
        (SequenceDecoder(H, 2, use_lengths=True), None, "use_lengths needs lengths in a batch; got none"),
    ],
)
def test_too_few_steps_and_lengths_that_are_not_there(decoder, lengths, message):
    with pytest.raises(ValueError, match=message):
        decoder(torch.randn(B, L, H), lengths)


def test_bad_options_of_decoders():
    with pytest.raises(ValueError, match=r"decoder.mode must be one of .*; got 'pol'. Did you mean 'pool'"):
        SequenceDecoder(H, 2, "pol")
    with pytest.raises(ValueError, match=r"decoder.l_output must be a whole number of at least 1; got -1"):
        SequenceDecoder(H, 2, l_output=-1)
    with pytest.raises(TypeError, match=r"decoder.use_lengths must be true or false; got 'yes'"):
        SequenceDecoder(H, 2, use_lengths="yes")
    assert set(DECODERS) == {"retrieval", "sequence", "tail_pool"}


def test_tokens_become_rows_of_the_table():
    encoder = EmbeddingEncoder(6, H)
    x = torch.randint(6, (2, L))
    torch.testing.assert_close(encoder(x), torch.stack([torch.stack([encoder.weight[i] for i in row]) for row in x]))


def test_one_hot_and_identity():
    x = torch.tensor([[0, 3, 1]])
    assert OneHotEncoder(4, H)(x).tolist() == [[[1, 0, 0, 0, 0], [0, 0, 0, 1, 0], [0, 1, 0, 0, 0]]]
    vectors = torch.randn(2, L, H)
    assert IdentityEncoder(H, H)(vectors) is vectors


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: EmbeddingEncoder(None, H),
            ValueError,
            "encoder embedding needs a data set of tokens.* encoder=linear",
        ),
        (lambda: OneHotEncoder(H + 1, H), ValueError, "at least the number of tokens, 6; got 5"),
        (lambda: IdentityEncoder(2, H), ValueError, "encoder id needs model.d_model=2, as the data have; got 5"),
        (lambda: EmbeddingEncoder(6, H)(torch.zeros(2, 3)), TypeError, "takes tokens.*; got torch.float32"),
        (
            lambda: OneHotEncoder(4, H)(torch.zeros(2, 3, 1, dtype=torch.long)),
            TypeError,
            r"takes tokens.* of shape \(2, 3, 1\)",
        ),
        (
            lambda: LinearEncoder(1, H)(torch.zeros(2, 3, dtype=torch.long)),
            TypeError,
            "linear encoder takes real numbers; got torch.int64. For tokens set encoder=embedding",
        ),
    ],
)
def test_data_that_do_not_suit_the_encoder(call, error, message):
    with pytest.raises(error, match=message):
        call()
