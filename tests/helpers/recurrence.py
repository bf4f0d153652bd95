"""A kernel run as a convolution and step by step."""

from __future__ import annotations

import torch


def convolve(kernel, u, state=None, first=0):
    """Outputs (B, C, H, L) of the convolution form from the tap ``first`` on, with the response to a state."""
    k, response = kernel(L=u.shape[-1], state=state)
    k = torch.cat([torch.zeros_like(k[..., :first]), k[..., first:]], -1)
    size = 2 * u.shape[-1]
    y = torch.fft.irfft(torch.fft.rfft(u, n=size).unsqueeze(1) * torch.fft.rfft(k, n=size), n=size)[..., : u.shape[-1]]
    return y if response is None else y + response


def in_steps(kernel, u, state):
    """Outputs (B, C, H, L) of the steps from a state, and the state after them."""
    outputs = []
    for x in u.unbind(-1):
        y, state = kernel.step(x, state)
        outputs.append(y)
    return torch.stack(outputs, -1), state


def zero_state(layer, batch):
    """The zero state of a layer, in double precision."""
    state = layer.default_state(batch)
    return state.to(torch.complex128 if state.is_complex() else torch.float64)


@torch.no_grad()
def assert_whole_is_chunks_is_steps(layer, x):
    """A layer in float64 on inputs (B, 11, H): outputs at once, in three chunks and in steps, and the last states."""
    whole, _ = layer(x)
    after_chunks = after_steps = zero_state(layer, len(x))
    chunks, steps = [], []
    for chunk in x.split([1, 4, 6], dim=1):
        y, after_chunks = layer(chunk, after_chunks)
        chunks.append(y)
    for u in x.unbind(1):
        y, after_steps = layer.step(u, after_steps)
        steps.append(y)
    pairs = ((torch.cat(chunks, 1), whole), (torch.stack(steps, 1), whole), (after_chunks, after_steps))
    for found, exact in pairs:
        torch.testing.assert_close(found, exact, rtol=1e-11, atol=1e-11)
