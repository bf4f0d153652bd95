"""train.compile: the numbers of the eager run, checkpoints that either continues, exact resumption."""

from __future__ import annotations

import pytest
import torch

from runs import LONGER, Stop, StopAt, checkpoint, run


def parameters(directory):
    return checkpoint(directory / "checkpoints" / "last.ckpt")["state_dict"]


@pytest.mark.slow
def test_compiled_training_is_the_eager_one_and_resumes_exactly(tmp_path):
    """By a backend that traces without generating code, which takes minutes of a C++ compiler."""
    compiled = "train.compile=aot_eager"
    run(tmp_path / "eager", *LONGER, "model.dropout=0")
    run(tmp_path / "whole", *LONGER, "model.dropout=0", compiled)
    eager, whole = parameters(tmp_path / "eager"), parameters(tmp_path / "whole")
    assert list(eager) == list(whole)
    for name in eager:
        torch.testing.assert_close(whole[name], eager[name], rtol=1e-3, atol=1e-4)
    with pytest.raises(Stop):
        run(tmp_path / "parts", *LONGER, "model.dropout=0", compiled, callbacks=[StopAt(2)])
    run(tmp_path / "parts", *LONGER, "model.dropout=0", compiled, "train.ckpt=auto")
    parts = parameters(tmp_path / "parts")
    assert all(torch.equal(parts[name], whole[name]) for name in whole)


def test_an_unknown_backend(tmp_path):
    with pytest.raises((TypeError, ValueError), match=r"train\.compile must be"):
        run(tmp_path, "train.compile=inductr")
