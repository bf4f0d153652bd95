"""Initial parameters of S4 and S4D against the host's own: mean, deviation and greatest modulus at H = 64, n = 64.

Runs when STATE_SPACES_HOME names a checkout; see conftest.py.
"""

from __future__ import annotations

CASES = [
    ("s4", "legs", 1, {}),
    ("s4", "legt", 2, {}),
    ("s4", "lagt", 1, {}),
    ("s4d", "diag-lin", 1, {}),
    ("s4d", "diag-legs", 1, {}),
    ("s4d-real", "diag-real", 1, {"is_real": True}),
]
CODE = """
import torch
from src.models.sequence.kernels.ssm import SSMKernelDiag, SSMKernelDPLR
from hope_ssm import registry

def moments(x):
    x = x.detach().double()
    modulus = torch.view_as_complex(x.contiguous()).abs() if x.shape[-1] == 2 else x.abs()
    return torch.stack([modulus.mean(), modulus.std(), modulus.max()])


for name, init, rank, options in CASES:
    host = dict(d_model=64, channels=64, d_state=64, init=init, rank=rank, n_ssm=1, l_max=64, verbose=False)
    theirs = (SSMKernelDPLR if name == "s4" else SSMKernelDiag)(backend="naive", **host, **options)
    own = {"s4": dict(init=init, rank=rank), "s4d": dict(init=init), "s4d-real": dict(output_gain=2.0)}[name]
    ours = registry.get(name)(d_model=64, channels=64, d_state=64, n_ssm=1, verbose=False, **own)
    parts = [("B", 1e-4)] + ([("C", 0.02)] if name != "s4" else [])  # the host turns S4's C by its kernel's length
    for part, tolerance in parts:
        one, two = moments(getattr(ours, part)), moments(getattr(theirs, part))
        assert torch.allclose(one[:2], two[:2], rtol=tolerance, atol=tolerance), (part, one, two)
        if part == "B":
            assert torch.allclose(one[2], two[2], atol=1e-4), (part, one, two)
"""


def test_moments(host):
    """In one process, because the host takes long to import."""
    done = host.python("-c", f"CASES = {CASES!r}{CODE}")
    assert done.returncode == 0, done.stderr
