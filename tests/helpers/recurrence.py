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
