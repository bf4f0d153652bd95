"""Batches with step_scale: a data set of samples at irregular times, from training to steps."""

from __future__ import annotations

import pytest
import torch

from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.data import Splits, register
from hope_ssm.workbench.evaluation import load
from hope_ssm.workbench.training import train
from tiny import TINY

MODEL = [option for option in TINY if option.startswith(("model", "trainer", "+trainer"))]
OPTIONS = ["pipeline=own", "dataset._name_=irregular", "loader.batch_size=4", *MODEL, "kernel=s4d"]


def with_gaps(samples):
    x, y, gaps = zip(*samples, strict=True)
    return torch.stack(x), torch.stack(y), {"step_scale": torch.stack(gaps)}


def irregular(flat: bool = False) -> Splits:
    made = torch.Generator().manual_seed(0)
    gaps = [0.1 + 2 * torch.rand(20, generator=made) for _ in range(12)]
    samples = [(torch.sin(g.cumsum(0) * (1 + i % 2)).unsqueeze(1), torch.tensor(i % 2), g) for i, g in enumerate(gaps)]
    if flat:
        samples = [(x, y, g[:5]) for x, y, g in samples]
    return Splits(samples, samples, samples, d_input=1, d_output=2, collate=with_gaps)


register("irregular", irregular)


def test_from_training_to_steps(tmp_path):
    train(compose(OPTIONS), tmp_path / "run", callbacks=[])
    model = load(tmp_path / "run")
    x, _, context = with_gaps(irregular().train[:3])
    gaps = context["step_scale"]
    with torch.inference_mode():
        whole, state = model(x, step_scale=gaps), model.default_state(3)
        for t in range(20):
            y, state = model.step(x[:, t], state, gaps[:, t])
    torch.testing.assert_close(y, whole, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(whole, model(x))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["kernel=hope"], "step_scale must be None with the hope kernel"),
        (["model.bidirectional=true"], "step_scale must be None in a model with bidirectional=true"),
        (["+dataset.flat=true"], r"step_scale of the train split must be real numbers of shape \(2, 20\); got"),
    ],
)
def test_what_cannot_be_done_is_said_before_training(tmp_path, options, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        train(compose([*OPTIONS, *options]), tmp_path / "run", callbacks=[])
