"""The callback effective_rank: its term, its gradient, and that it raises the rank in training."""

from __future__ import annotations

import pytest
import torch

from hope_ssm.hankel import effective_rank, hankel_singular_values
from hope_ssm.kernels.hope import HopeKernel
from hope_ssm.lens.regularizer import EffectiveRank
from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.training import train
from tiny import TINY


def test_the_term():
    delay = HopeKernel(d_model=3, d_state=8, init="delay")
    assert EffectiveRank(5.0).penalty(delay).item() == pytest.approx(0, abs=1e-5)
    torch.manual_seed(0)
    kernels = torch.nn.ModuleList([HopeKernel(d_model=3, d_state=8), HopeKernel(d_model=2, d_state=4, channels=2)])
    shares = [
        effective_rank(hankel_singular_values(kernel.markov_parameters)).log() / torch.tensor(float(n)).log()
        for kernel, n in zip(kernels, (8, 4), strict=True)
    ]
    expected = 5 * sum(1 - share.mean() for share in shares)
    torch.testing.assert_close(EffectiveRank(5.0).penalty(kernels), expected)


def test_the_gradient_is_added_to_that_of_the_loss():
    torch.manual_seed(0)
    kernel = HopeKernel(d_model=3, d_state=8)
    callback = EffectiveRank(2.0)
    kernel.markov_parameters.grad = torch.ones_like(kernel.markov_parameters)
    callback.on_before_optimizer_step(None, kernel, None)
    (alone,) = torch.autograd.grad(callback.penalty(kernel), kernel.markov_parameters)
    torch.testing.assert_close(kernel.markov_parameters.grad, 1 + alone)
    assert alone.abs().max() > 0


def test_training_with_it_raises_the_rank(tmp_path):
    quiet = ["+trainer.enable_progress_bar=false", "train.tensorboard=false", "trainer.limit_train_batches=8"]
    quiet += ["model.layer.init_scale=1"]
    found = {}
    for name, extra in (("without", []), ("with", ["+callbacks.effective_rank.weight=3.0"])):
        task = train(compose([*TINY, *quiet, "kernel=hope", *extra]), tmp_path / name).task
        (h,) = (value for key, value in task.state_dict().items() if key.endswith("markov_parameters"))
        found[name] = effective_rank(hankel_singular_values(h)).mean()
    assert found["with"] > found["without"] + 0.05


def test_refusals():
    with pytest.raises(ValueError, match="weight must be a finite number above 0; got 0"):
        EffectiveRank(0)
    for model in (torch.nn.Linear(1, 1), HopeKernel(d_model=1, d_state=1), HopeKernel(d_model=2, lr={"C": 0})):
        with pytest.raises(ValueError, match=r"must have a model with trained Markov parameters.* Leave the callback"):
            EffectiveRank(1.0).penalty(model)
