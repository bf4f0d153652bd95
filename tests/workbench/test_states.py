"""States of a model: steps and chunks at any time, and what is refused."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from hope_ssm.layers.fftconv import FFTConvolution
from hope_ssm.layers.s4block import S4Block
from hope_ssm.workbench.models.backbone import SequenceModel
from kernel_cases import KINDS


def model_of(kernel="hope", **layer):
    layer = {"_name_": "s4", "mode": kernel, "d_state": 6} | layer
    return SequenceModel(4, layer, n_layers=2, norm="layer").double().eval()


# Steps and chunks


@pytest.mark.parametrize("kernel", KINDS)
def test_setup_step_at_any_time_and_training_in_between(kernel):
    """At every level as in the host; after an optimizer step the next sample has the new parameters."""
    model = model_of(kernel)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    x = torch.randn(2, 9, 4, dtype=torch.float64)
    seen = []
    for turn in range(3):
        for part in [(), (model,), (model.layers[0].layer,), (model.layers[1].layer.layer, model)][turn]:
            part.setup_step()
        state, steps = model.default_state(2), []
        with torch.no_grad():
            for sample in x.unbind(1):
                y, state = model.step(sample, state)
                steps.append(y)
            torch.testing.assert_close(torch.stack(steps, 1), model(x)[0], rtol=1e-11, atol=1e-11)
        seen.append(steps[-1])
        optimizer.zero_grad()
        model(x)[0].square().mean().backward()
        optimizer.step()
    assert all((a - b).abs().max() > 1e-4 for a, b in pairwise(seen))
    with pytest.raises(TypeError, match="setup_step has no option 'stride'; it takes none"):
        model.setup_step(stride=2)


@pytest.mark.parametrize("kernel", KINDS)
def test_l_max_longer_and_shorter_than_the_input(kernel):
    """Chunks up to l_max go on from their state exactly, as steps do; a longer one is refused, not cut."""
    layer = FFTConvolution(3, kernel, d_state=6, l_max=8).double()
    free = FFTConvolution(3, kernel, d_state=6).double()
    free.load_state_dict(layer.state_dict())
    x = torch.randn(2, 20, 3, dtype=torch.float64)
    with torch.no_grad():
        whole, last = free(x, free.default_state(2))
        state, parts = layer.default_state(2), []
        for chunk in x.split([1, 8, 3, 8], dim=1):
            y, state = layer(chunk, state)
            parts.append(y)
        torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(state, last, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(layer(x)[0][:, :8], whole[:, :8], rtol=1e-11, atol=1e-11)
        assert not torch.allclose(layer(x)[0], whole)
        assert layer(x, rate=100)[0].shape == x.shape  # round(8 / 100) is no length
    with pytest.raises(
        ValueError, match=r"must not be longer than l_max=8, .*; got 9 steps\. Use l_max=null or shorter"
    ):
        layer(x[:, :9], state)


@pytest.mark.parametrize("kernel", KINDS)
def test_states_that_are_refused(kernel):
    """Of another batch, feature, n, number of axes, dtype or kind: never broadcast."""
    layer = FFTConvolution(4, kernel, d_state=6)
    x, good = torch.zeros(2, 5, 4), layer.default_state(2)
    double, other = (good.double(), good.long()) if kernel == "hope" else (good.to(torch.complex128), good.real)
    shape = (
        r"^the state must be (real|complex) of shape \(batch, 4, [36]\); got shape .*\. default_state\(batch\) makes"
    )
    batch = r"^u and the state must have one batch size; got 2 and [13]\. default_state\(batch\) makes a state\.$"
    for bad, error, message in [
        (layer.default_state(1), ValueError, batch),
        (layer.default_state(3), ValueError, batch),
        (good[:, :1], ValueError, shape),
        (good[..., :1], ValueError, shape),
        (good[0], ValueError, shape),
        (good.unsqueeze(1), ValueError, shape),
        (double, TypeError, r"^the state must be torch\.\w+, as default_state\(batch\) makes it; got torch\.\w+\.$"),
        (other, TypeError, r"^the state must be .*; got torch\.\w+\."),
        ([good], TypeError, "got list"),
    ]:
        with pytest.raises(error, match=message):
            layer(x, bad)
        with pytest.raises(error, match=message):
            layer.step(x[:, 0], bad)
        with pytest.raises(error, match=message):
            layer(x, bad, lengths=torch.tensor([5, 2]))


def test_calls_that_are_refused():
    layer, both = FFTConvolution(4, "hope", d_state=6), S4Block(4, mode="hope", d_state=6, bidirectional=True)
    state, x = layer.default_state(2), torch.zeros(2, 5, 4)
    with pytest.raises(
        ValueError, match=r"^the layer's input must have shape \(batch, length, 4\); got \(2, 0, 4\)\.$"
    ):
        layer(x[:, :0], state)
    for rate in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=r"^rate must be a finite number above 0; got "):
            FFTConvolution(4, "hope", l_max=3)(x, rate=rate)
    with pytest.raises(
        ValueError, match=r"^the rate must be 1 with a state; got 2\.0\. Call without a state, or train"
    ):
        layer(x, state, rate=2)
    with pytest.raises(ValueError, match=r"^a bidirectional layer must be called without a state"):
        both(x, both.default_state(2))
    for call in (both.setup_step, lambda: both.step(x[:, 0], both.default_state(2))):
        with pytest.raises(ValueError, match=r"^a bidirectional layer has no recurrent mode; train it with"):
            call()
    model = model_of()
    for bad, got in ((model.default_state(2)[:1], "1"), (model.default_state(2)[0], "Tensor"), ([], "0")):
        for call in (model, model.step):
            with pytest.raises(
                ValueError, match=rf"^the state must be a list of 2, one per layer; got {got}\. default_state"
            ):
                call(x.double() if call is model else x[:, 0].double(), bad)
