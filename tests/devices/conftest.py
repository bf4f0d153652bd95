"""The device under test: ``--device``, the CPU unless something else is asked for."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def device(request):
    found = torch.device(request.config.getoption("--device"))
    if found.type == "cuda":
        assert torch.cuda.is_available(), "--device must be one that torch sees here; got cuda"
    return found


@pytest.fixture
def gpu(device):
    if device.type != "cuda":
        pytest.skip("CUDA's graphs and streams need a GPU: --device cuda")
    return device
