"""Traces and exports of the whole layer: of one length, or of all up to a largest one."""

from __future__ import annotations

import pytest
import torch

from features import needs
from hope_ssm import HopeLayer
from hope_ssm.requirements import COMPILED
from kernel_cases import ENTRIES, LONGEST, RECURRENT, H, every_kernel

LARGEST = 30

pytestmark = needs(COMPILED)


def layer(name, **options):
    own = {"d_state": 6} if name in RECURRENT else {"l_max": LONGEST}
    own |= {"horizon": LARGEST} if name.startswith("hope") else {}  # what is exported does not wait for a length
    return HopeLayer(H, kernel=name, **own, **options).eval()


def exported(module, x, largest=LARGEST):
    shapes = ({1: torch.export.Dim("length", min=2, max=largest)},)
    return torch.export.export(module, (x,), dynamic_shapes=shapes).module()


CASES = [pytest.param(name, {}, marks=() if name == "hope" else pytest.mark.slow) for name in ENTRIES]
CASES += [pytest.param(name, {"bidirectional": True}, marks=pytest.mark.slow) for name in ("hope", "s4d")]
CASES += [pytest.param("hope", {"bidirectional": True, "reverse_lag": 0}, marks=pytest.mark.slow)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), CASES)
def test_export_with_a_dynamic_length(name, options):
    module = layer(name, **options)
    program = exported(module, torch.randn(2, 10, H))
    for length in (2, 3, 10, 15, 16, 17, LARGEST):
        x = torch.randn(2, length, H)
        torch.testing.assert_close(program(x), module(x), rtol=1e-5, atol=1e-5)


def test_a_dynamic_length_without_end_or_of_an_untruncated_kernel():
    x = torch.randn(2, 10, H)
    with pytest.raises(ValueError, match=r"must have a largest value, .*; got none\. Export with torch\.export\.Dim"):
        exported(layer("hope"), x, None)
    for name in ("hope", "rtf"):
        with pytest.raises(ValueError, match=r"got truncation='none'\. Take truncation='exact'"):
            exported(layer(name, truncation="none"), x)


@pytest.mark.parametrize("lag", [-1, 0])
def test_a_dynamic_length_beyond_l_max_in_both_directions_is_refused(lag):
    module = layer("hope", bidirectional=True, reverse_lag=lag, l_max=7)
    with pytest.raises(ValueError, match=r"must end at its l_max, 7 steps here; got up to 30\."):
        exported(module, torch.randn(2, 10, H))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.*:DeprecationWarning")
@every_kernel
def test_a_trace_is_of_one_length_and_refuses_others(name, tmp_path):
    module, x = layer(name), torch.randn(2, 10, H)
    torch.jit.trace(module, (x,)).save(tmp_path / "traced.pt")
    traced = torch.jit.load(tmp_path / "traced.pt")
    for batch in (1, 2, 3):
        x = torch.randn(batch, 10, H)
        torch.testing.assert_close(traced(x), module(x), rtol=1e-5, atol=1e-5)
    with pytest.raises(RuntimeError, match="shape"):
        traced(torch.randn(2, 15, H))
