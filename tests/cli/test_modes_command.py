"""hope modes: a row for every recurrent kernel, with small differences and a time."""

from __future__ import annotations

import pytest

from hope_ssm import registry
from hope_ssm.cli import modes


@pytest.mark.slow
def test_every_recurrent_kernel_has_a_row_with_small_differences(capsys):
    assert modes.run(["--features", "4", "--d-state", "8", "--length", "60", "--repeats", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {}
    for line in lines:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in registry.kernels():
            rows[cells[0]] = cells
    recurrent = {name for name, entry in registry.kernels().items() if entry.described().recurrent}
    assert set(rows) == recurrent >= {"hope", "s4", "s4d"}
    for cells in rows.values():
        assert all(float(cell) < 1e-11 for cell in cells[2:4])
        assert all(float(cell) < 1e-4 for cell in cells[4:6])
        assert float(cells[6].split()[0]) > 0


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="--features must be a whole number of at least 1; got 0"):
        modes.run(["--features", "0"])
