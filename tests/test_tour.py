"""The notebook runs from its first cell to its last, in this process: no notebook server, no further packages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

TOUR = Path(__file__).parents[1] / "docs" / "tour.ipynb"


def code_cells():
    cells = json.loads(TOUR.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_it_has_ten_cells_and_is_stored_without_what_they_print():
    cells = code_cells()
    assert len(cells) == 10
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)
    assert TOUR.stat().st_size < 20_000
    lines = [line.rstrip("\n") for cell in cells for line in cell["source"]]
    assert max(map(len, lines)) <= 120
    assert not [line for line in lines if line.startswith(("%", "!"))], "plain Python runs everywhere"


@pytest.mark.slow
def test_its_cells_run_and_hope_solves_the_task(tmp_path, monkeypatch):
    from hope_ssm.reporting.plots import pyplot

    monkeypatch.chdir(tmp_path)
    pyplot()  # draws into files
    threads = torch.get_num_threads()
    names = {"__name__": "__notebook__"}
    for number, cell in enumerate(code_cells()):
        exec(compile("".join(cell["source"]), f"{TOUR.name}, cell {number + 1}", "exec"), names)
    torch.set_num_threads(threads)
    assert len(pyplot().get_fignums()) == 3
    assert names["runs"]["hope"].metrics["test/accuracy"] > 0.9
    assert names["after"] > 0.8


@pytest.mark.slow
def test_a_notebook_server_runs_it_too(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(TOUR, as_version=4)
    there = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=900, kernel_name="python3", resources=there).execute()
    printed = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in printed) >= 3
