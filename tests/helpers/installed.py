"""Backends as test parameters: those whose package is absent are skipped."""

from __future__ import annotations

import pytest
import torch

from hope_ssm.ops import backends


def backend(name):
    try:
        backends.check_available(name, torch.device("cpu"))
    except (ImportError, ValueError) as absence:
        return pytest.param(name, marks=pytest.mark.skip(reason=str(absence)))
    return pytest.param(name)


def backend_parameters(*excluded):
    return [backend(name) for name in backends.MODULES if name not in excluded]
