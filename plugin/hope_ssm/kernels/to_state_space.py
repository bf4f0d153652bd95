"""The state space that a recurrent kernel is, read off its steps: of any kernel with the interface of ``base``."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from hope_ssm.hankel import StateSpace
from hope_ssm.kernels.hope import HopeKernel
from hope_ssm.kernels.s4d import S4DKernel


def duplicate(kernel: nn.Module) -> nn.Module:
    """Return a copy to analyse, on the CPU and without gradients.

    Whatever tensors a kernel keeps beside its parameters: those of state-spaces/s4 may be in a graph, which torch
    refuses to copy.
    """
    memo: dict[int, Any] = {}
    for module in kernel.modules():
        for held in vars(module).values():
            for value in held.values() if isinstance(held, dict) else (held,):
                if isinstance(value, Tensor):
                    kept = value.data.cpu().clone()
                    memo[id(value)] = nn.Parameter(kept, False) if isinstance(value, nn.Parameter) else kept
    return copy.deepcopy(kernel, memo)


@torch.no_grad()
def stepped_system(kernel: nn.Module) -> StateSpace:
    """(A, B, C, D) of all features, by one step from every unit state at rest and one from rest under u = 1.

    A step is linear in (u, s) and features do not mix; a complex state counts as twice as many real ones. So this
    needs nothing but ``step`` and ``default_state``, whatever the kernel's own parameters are. In float64.

    Args:
        kernel: with C channels and H features.

    Returns:
        A (H, n, n), B (H, n), C (H, C, n), D (H, C).
    """
    stepped: Any = duplicate(kernel).double()
    stepped._setup_step()
    shape = stepped.default_state(1).shape[1:]
    per_feature = stepped.default_state(1)[0, 0].numel() * (2 if stepped.default_state(1).is_complex() else 1)
    batch = per_feature + 1
    state = stepped.default_state(batch)
    is_complex = state.is_complex()
    flat = (torch.view_as_real(state) if is_complex else state).reshape(batch, shape[0], per_feature).clone()
    flat[:per_feature] = torch.eye(per_feature, dtype=flat.dtype, device=flat.device).unsqueeze(1)
    u = torch.zeros(batch, shape[0], dtype=flat.dtype, device=flat.device)
    u[-1] = 1
    state = torch.view_as_complex(flat.view(*state.shape, 2)) if is_complex else flat.view(state.shape)
    y, after = stepped.step(u, state)
    after = (torch.view_as_real(after) if is_complex else after).reshape(batch, shape[0], per_feature)
    after, y = after.double().movedim(0, -1), y.double().permute(2, 1, 0)  # (H, n, batch), (H, C, batch)
    return StateSpace(after[..., :-1], after[..., -1], y[..., :-1], y[..., -1])


@torch.no_grad()
def system(kernel: Any) -> tuple[StateSpace, Tensor, Tensor]:
    """The kernel's systems, the sampling period they are written down for, and the one the kernel has.

    HOPE is written down for a sampling period of 1, where it is Σ_k h_k z^{-(k+1)} exactly; the bilinear change to its
    own leaves Hankel singular values and H∞ norms alone. Other kernels are taken as they step.

    Returns:
        the systems, τ (H,), Δt (H,), float64; Δt is 1 for kernels without one.

    Raises:
        NotImplementedError: a kernel without a recurrent mode.
    """
    if not callable(getattr(kernel, "step", None)) or not callable(getattr(kernel, "default_state", None)):
        raise NotImplementedError(
            f"the kernel must have step and default_state to be a state space; {type(kernel).__name__} has not."
        )
    features = kernel.default_state(1).shape[1]
    dt = getattr(kernel, "sampling_period", None)
    period = torch.ones(features, dtype=torch.float64) if dt is None else dt.detach().double().cpu()
    if isinstance(kernel, HopeKernel):
        h = kernel.markov_parameters.detach().double().cpu().transpose(0, 1)
        return StateSpace.from_markov_parameters(h), torch.ones_like(period), period
    return stepped_system(kernel), period, period


@torch.no_grad()
def modes(kernel: S4DKernel, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """G(z) = Σ_j C_j B_j / (z - λ_j) as S4D steps, but for one delay less: λ, B, C (C, F, n) complex, with conjugates.

    (S4D answers after its update, k_t = C Aᵗ B for t ≥ 0: its Hankel operator begins with k_1 = (C A) B.)

    Args:
        kernel: with C channels.
        features: indices (F,).
    """
    transition, B = kernel.discretized()
    poles = torch.complex(transition.real, transition.imaginary)[features].cpu()
    B = torch.complex(*B[features].chunk(2, dim=-1)).cpu()
    C = torch.view_as_complex(kernel.C[:, features].double().contiguous()).cpu() * poles
    poles, B, C = (torch.cat([part, part.conj()], dim=-1) for part in (poles.expand_as(C), B.expand_as(C), C))
    return poles, B, C
