"""S5 and LinOSS against the recurrences of their papers, and whole, in chunks, in steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hope_ssm.layers.linoss import DISCRETIZATIONS, LinOSS, OscillatorKernel
from hope_ssm.layers.parameter_groups import parameter_groups
from hope_ssm.layers.s5 import S5
from recurrence import assert_whole_is_chunks_is_steps

BATCH, LENGTH, H = 3, 11, 4
MADE = {
    "s5": lambda **options: S5(H, d_state=12, blocks=2, **options),
    **{d: (lambda d=d, **options: LinOSS(H, d_state=6, discretization=d, **options)) for d in DISCRETIZATIONS},
    "real": lambda **options: LinOSS(H, d_state=6, coefficients="real", **options),
}
every_layer = pytest.mark.parametrize("name", MADE)


def made(name, **options):
    torch.manual_seed(0)
    return MADE[name](**options).double().eval()


def inputs():
    return torch.randn(BATCH, LENGTH, H, dtype=torch.float64)


@every_layer
@pytest.mark.parametrize("memory", [None, {"size": 3}])
def test_whole_in_chunks_and_in_steps(name, memory):
    assert_whole_is_chunks_is_steps(made(name, input_memory=memory), inputs())


@every_layer
@torch.no_grad()
def test_what_follows_the_lengths_is_not_seen(name):
    x, lengths = inputs(), torch.tensor([2, 11, 7])
    for layer in (made(name), made(name, bidirectional=True)):
        y, _ = layer(x, lengths=lengths)
        for row, length in enumerate(lengths.tolist()):
            alone, _ = layer(x[row : row + 1, :length])
            torch.testing.assert_close(y[row : row + 1, :length], alone, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("bidirectional", [False, True])
@torch.no_grad()
def test_s5_equals_its_recurrence(bidirectional):
    """x_t = Λ̄ x_{t-1} + Λ⁻¹(Λ̄ - 1) B u_t in complex numbers, and from the end backwards with a C of its own."""
    layer, x = made("s5", bidirectional=bidirectional), inputs()
    system, kernel = layer.layer, layer.layer.kernel
    poles = np.minimum(kernel.A_real.numpy(), -1e-4)[:, 0] + 1j * kernel.A_imag.numpy()[:, 0]
    dt, u = np.exp(kernel.raw_sampling_period.numpy()), x.numpy()
    p = len(poles)
    B = system.B.numpy()[0, :p] + 1j * system.B.numpy()[0, p:]
    parts = np.split(system.C.numpy()[0], 4 if bidirectional else 2, axis=-1)
    y = system.D.numpy() * u
    for C, times in zip([parts[0] + 1j * parts[1], *([parts[2] + 1j * parts[3]] if bidirectional else [])],
                        [range(LENGTH), range(LENGTH - 1, -1, -1)], strict=False):  # fmt: skip
        state = np.zeros((BATCH, p), complex)
        for t in times:
            state = np.exp(poles * dt) * state + (np.exp(poles * dt) - 1) / poles * (u[:, t] @ B.T)
            y[:, t] += 2 * (state @ C.T).real
    z = torch.nn.functional.gelu(torch.as_tensor(y))
    exact = z * torch.sigmoid(z @ layer.gate.weight.T + layer.gate.bias)
    torch.testing.assert_close(layer(x)[0], exact, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("discretization", DISCRETIZATIONS)
@torch.no_grad()
def test_linoss_equals_its_recurrence(discretization):
    """Position and velocity step by step, as the schemes are written; the implicit one by solving for both."""
    layer, x = made(discretization), inputs()
    system, kernel = layer.layer, layer.layer.kernel
    dt, a = 1 / (1 + np.exp(-kernel.raw_sampling_period.numpy())), kernel.stiffness.numpy()
    g = kernel.damping.numpy() if discretization == "damped" else 0 * a
    if discretization == "damped":
        scale = 1 + dt * g
        a = np.clip(a, (np.sqrt(scale) - 1) ** 2 / dt**2, (np.sqrt(scale) + 1) ** 2 / dt**2)
    u, D = x.numpy(), system.D.numpy()
    B = system.B.numpy()[0, :3] + 1j * system.B.numpy()[0, 3:]
    C = system.C.numpy()[0, :, :3] - 1j * system.C.numpy()[0, :, 3:]
    velocity = position = np.zeros((BATCH, 3), complex)
    y = np.zeros_like(u)
    for t in range(LENGTH):
        force = u[:, t] @ B.T
        if discretization == "im":
            for k in range(3):
                matrix = np.array([[1, dt[k] * a[k]], [-dt[k], 1]])
                both = np.linalg.solve(matrix, np.stack([velocity[:, k] + dt[k] * force[:, k], position[:, k]]))
                velocity, position = (np.array(part) for part in (velocity, position))
                velocity[:, k], position[:, k] = both
        else:
            velocity = (velocity + dt * (force - a * position)) / (1 + dt * g)
            position = position + dt * velocity
        y[:, t] = (position @ C.T).real + D * u[:, t]
    z = torch.nn.functional.gelu(torch.as_tensor(y))
    exact = torch.nn.functional.glu(z @ layer.gate[0].weight.T + layer.gate[0].bias)
    torch.testing.assert_close(layer(x)[0], exact, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("discretization", DISCRETIZATIONS)
@torch.no_grad()
def test_oscillators_never_grow(discretization):
    """Whatever the trained numbers are, both eigenvalues of a step are within the unit circle; imex is on it."""
    kernel = OscillatorKernel(d_model=200, discretization=discretization).double()
    kernel.stiffness.uniform_(-100, 1000)
    kernel.raw_sampling_period.uniform_(-6, 6)
    if discretization == "damped":
        kernel.damping.uniform_(-5, 50)
    moduli = torch.linalg.eigvals(kernel.discretized()[0].entries).abs()
    if discretization == "im":
        assert moduli.max() < 1 + 1e-7
    else:
        damping = kernel.damping.clamp(min=0) if discretization == "damped" else torch.zeros(200)
        exact = (1 + kernel.sampling_period * damping) ** -0.5
        torch.testing.assert_close(moduli, exact.unsqueeze(-1).expand(-1, 2), rtol=0, atol=1e-6)


@every_layer
def test_gradients(name):
    """Finite differences agree with the gradients by inputs and by every parameter."""
    layer, x = made(name, bidirectional=True), inputs()[:1, :5].requires_grad_()
    if name != "s5":
        layer.layer.kernel.stiffness.data.add_(0.5)  # within its range
    names, values = zip(*layer.named_parameters(), strict=True)
    copies = [value.detach().clone().requires_grad_() for value in values]

    def outputs(u, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (u,))[0]

    assert torch.autograd.gradcheck(outputs, (x, *copies))


def test_parameters_and_their_rates():
    """S5: Λ and Δ per mode, complex B and C, D, a gate. LinOSS: a and Δ (and g) per oscillator, complex B and C."""
    layer = S5(8, d_state=12)
    assert sum(p.numel() for p in layer.layer.parameters()) == 3 * 6 + 4 * 6 * 8 + 8
    slow = next(group for group in parameter_groups(layer) if group.get("lr") == 0.001)
    assert {name.rsplit(".", 1)[-1] for name in slow["names"]} == {"B", "raw_sampling_period", "A_real", "A_imag"}
    assert sum(p.numel() for p in S5(8, d_state=12, bidirectional=True).layer.parameters()) == 3 * 6 + 6 * 6 * 8 + 8
    for discretization, each in (("im", 2), ("imex", 2), ("damped", 3)):
        for coefficients, parts in (("complex", 2), ("real", 1)):
            layer = LinOSS(8, d_state=12, discretization=discretization, coefficients=coefficients)
            assert sum(p.numel() for p in layer.layer.parameters()) == each * 6 + 2 * parts * 6 * 8 + 8
        assert not any(group.get("lr") for group in parameter_groups(layer))
    assert S5(8, lr=0).layer.B.requires_grad is False


@pytest.mark.parametrize("deterministic", [False, True])
@torch.no_grad()
def test_linoss_begins_as_its_authors_code_does(deterministic):
    """a and raw uniform on [0, 1]; damped: eigenvalues uniform on the ring from 0.9 to 1, raw normal of deviation ½."""
    layer = LinOSS(64, d_state=2000, deterministic=deterministic).layer
    for name in ("stiffness", "raw_sampling_period"):
        values = getattr(layer.kernel, name)
        assert values.min() >= 0
        assert values.max() <= 1
        assert abs(values.mean() - 0.5) < 0.05
        assert abs(values.std() - 12**-0.5) < 0.02
    assert abs(layer.B.std() - (1 / 64 / 3) ** 0.5) < 0.002
    assert abs(layer.C.std() - (1 / 1000 / 3) ** 0.5) < 0.0005
    kernel = LinOSS(64, d_state=2000, discretization="damped", deterministic=deterministic).double().layer.kernel
    raw = kernel.raw_sampling_period
    assert abs(raw.mean()) < 0.06
    assert abs(raw.std() - 0.5) < 0.05
    square = torch.linalg.eigvals(kernel.discretized()[0].entries)[:1000].abs().square()[:, 0]
    angle = torch.linalg.eigvals(kernel.discretized()[0].entries)[:1000, 0].angle().abs()
    assert square.min() > 0.81 - 1e-6
    assert square.max() < 1 + 1e-6
    assert abs(square.mean() - 0.905) < 0.006
    assert abs(angle.mean() - np.pi / 2) < 0.1
    assert abs(angle.std() - np.pi / 12**0.5) < 0.05


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (S5, {"d_state": 6, "blocks": 2}, r"d_state must be a multiple of 2·blocks=4; got 6"),
        (S5, {"blocks": 0}, "blocks must be a whole number of at least 1; got 0"),
        (S5, {"block": 2}, "the s5 layer has no option 'block'.*Did you mean 'blocks'"),
        (LinOSS, {"d_state": 5}, "d_state of linoss must be even, two numbers an oscillator; got 5"),
        (LinOSS, {"discretization": "imax"}, "discretization must be one of .*; got 'imax'.*Did you mean 'im"),
    ],
)
def test_refusals(make, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make(H, **options)


def test_a_state_of_another_layer_is_refused():
    x = torch.zeros(2, 5, H)
    with pytest.raises(TypeError, match=r"the state must be complex of shape \(batch, 12, 1\)"):
        S5(H, d_state=12)(x, LinOSS(H, d_state=12).default_state(2))
    with pytest.raises(ValueError, match=r"the state must be real of shape \(batch, 12, 2\)"):
        LinOSS(H, d_state=12)(x, LinOSS(H, d_state=6).default_state(2))
