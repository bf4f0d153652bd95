"""Tables for a paper and for a terminal, names, and one colour for each kernel in every picture."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from hope_ssm import registry
from hope_ssm.benchmark import report as bench_report
from hope_ssm.benchmark.measure import Measurement
from hope_ssm.figures import claims
from hope_ssm.reporting import plots
from hope_ssm.reporting.plots import KERNEL_COLORS, OTHER_COLORS, kernel_color, kernel_of, kernel_styles
from hope_ssm.reporting.tables import fitting, latex_table, plain_table
from hope_ssm.workbench.reports import curves, names, report
from hope_ssm.workbench.reports.rows import Row
from hope_ssm.workbench.run_directory import RunDirectory

PACKAGE = Path(plots.__file__).parents[1]


def test_every_kernel_has_a_title_and_a_colour_of_its_own():
    own = registry.own_entries()
    assert set(KERNEL_COLORS) == set(own)
    assert len({entry.title for entry in own.values()} - {""}) == len(own)
    assert len({*KERNEL_COLORS.values(), *OTHER_COLORS}) == len(KERNEL_COLORS) + len(OTHER_COLORS)


def test_colours_are_named_in_the_one_table_alone():
    for path in PACKAGE.rglob("*.py"):
        if path != Path(plots.__file__) and "upstream" not in path.parts:
            text = [n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)]
            assert not [word for word in text if isinstance(word, str) and re.fullmatch("#[0-9a-fA-F]{6}|C[0-9]", word)]


@pytest.mark.parametrize(
    ("name", "kernel"),
    [("s4d legs", "s4d"), ("s4d-real", "s4d-real"), ("s4-hippo", "s4"), ("hope-bands", "hope-bands"), ("ema", "ema")],
)
def test_a_version_of_a_kernel_has_its_colour(name, kernel):
    assert kernel_of(name) == kernel
    assert kernel_color(name) == kernel_color(kernel) == KERNEL_COLORS.get(kernel, kernel_color("ema"))


def test_versions_of_one_kernel_are_told_apart():
    styles = kernel_styles(["s4d lin", "hope", "s4d inv", "s4d legs"])
    assert [style["color"] for style in styles[:2]] == [KERNEL_COLORS["s4d"], KERNEL_COLORS["hope"]]
    assert len({(style["color"], style["ls"]) for style in styles}) == 4


@pytest.fixture
def drawn(monkeypatch):
    """The colours of the labelled lines of the next picture, by label; and its figure."""
    seen = {}

    def keep(figure, path, dpi=110):
        seen["figure"] = figure
        seen["colors"] = {
            line.get_label(): line.get_color() for axes in figure.axes for line in axes.get_lines()
            if not line.get_label().startswith("_")
        }  # fmt: skip

    for module in (curves, bench_report, claims):
        monkeypatch.setattr(module, "save", keep)
    yield seen
    plots.pyplot().close("all")


def test_the_curves_of_a_report_have_the_colours_of_their_kernels(drawn, tmp_path):
    def one(kernel, label, settings):
        run = RunDirectory(tmp_path / label)
        run.path.mkdir()
        (run.path / "config.yaml").write_text(yaml.safe_dump({"model": {"layer": {"mode": kernel}}}))
        (run.path / "metrics.csv").write_text("epoch,val/accuracy,train/loss\n0,0.25,1\n1,0.5,0.5\n")
        return Row(settings, label, [run], [])

    table = [one("diag", "S4D", {}), one("hope", "HOPE", {}), one("hope", "HOPE, lr 0.1", {})]
    curves.draw_curves(table, "val/accuracy", tmp_path / "report.png")
    assert drawn["colors"]["S4D"] == KERNEL_COLORS["s4d"]
    assert drawn["colors"]["HOPE"] == KERNEL_COLORS["hope"]
    assert drawn["colors"]["HOPE, lr 0.1"] not in (KERNEL_COLORS["hope"], KERNEL_COLORS["s4d"])
    left = drawn["figure"].axes[0]
    assert left.get_ylabel() == "validation accuracy %"
    assert list(left.get_lines()[0].get_ydata()) == [25, 50]


def test_the_speed_picture_has_ticks_at_its_sizes_alone(drawn, tmp_path):
    def row(name):
        return Measurement(name, seconds={"forward+backward": [1e-3, 2e-3]}, memory=10**6)

    sizes = {size: [row("hope-krylov"), row("host-s4-naive"), row("algorithm-1")] for size in (256, 512, 1024)}
    bench_report.draw({"L": sizes}, "conditions", tmp_path / "speed.png")
    figure = drawn["figure"]
    figure.canvas.draw()
    for axes in figure.axes:
        labels = [label.get_text() for label in axes.get_xticklabels(which="both") if label.get_text()]
        assert labels == ["256", "512", "1024"]
    assert drawn["colors"]["hope-krylov"] == KERNEL_COLORS["hope"]
    assert drawn["colors"]["host-s4-naive"] == KERNEL_COLORS["s4"]


def test_a_picture_is_saved_in_three_formats_that_repeat(tmp_path):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        figure, axes = plots.pyplot().subplots()
        axes.plot([1, 2], [3, 4], label="x")
        plots.save(figure, tmp_path / place / "p.q.png")
    for name in ("p.q.png", "p.q.pdf", "p.q.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


TABLE = [
    ["configuration", "accuracy %", "95 % interval", "note_1"],
    ["HOPE, lr 0.1", "94.43 ± 0.21", "-1.5 to +2.5", "{a} & b"],
    ["S4D", "–", "–", "50 % #1"],
]


def test_a_latex_table_is_set_with_booktabs_and_escapes_everything():
    assert latex_table(TABLE).splitlines() == [
        r"% needs \usepackage{booktabs}",
        r"\begin{tabular}{lrrl}",
        r"\toprule",
        r"configuration & accuracy \% & 95 \% interval & note\_1 \\",
        r"\midrule",
        r"HOPE, lr 0.1 & $94.43 \pm 0.21$ & $-$1.5 to $+$2.5 & \{a\} \& b \\",
        r"S4D & -- & -- & 50 \% \#1 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_latex_sets_the_table(tmp_path):
    page = r"\documentclass{article}\usepackage{booktabs}\begin{document}" + latex_table(TABLE) + r"\end{document}"
    (tmp_path / "t.tex").write_text(page)
    assert subprocess.run(["pdflatex", "-halt-on-error", "t.tex"], cwd=tmp_path).returncode == 0


def test_the_least_columns_go_first_and_the_rest_is_folded():
    rows = [["configuration", "accuracy", "d_state", "memory"], ["a rather long name of a row", "0.5", "64", "123456"]]
    whole, gone = fitting(rows, ("memory", "d_state"), 80)
    assert (whole, gone) == (rows, [])
    narrow, gone = fitting(rows, ("memory", "d_state"), 48)
    assert gone == ["memory"]
    assert narrow[0] == ["configuration", "accuracy", "d_state"]
    folded = plain_table(narrow, 35)
    assert folded.splitlines()[2:] == ["a rather long     0.5       64", "name of a row"]
    assert max(map(len, folded.splitlines())) <= 35


def test_names_of_rows_and_metrics():
    assert names.labels([{"kernel": "hope"}, {"kernel": "s4-hippo", "model.layer.d_state": "8"}, {}]) == [
        "HOPE", "S4-hippo, d_state 8", "default",
    ]  # fmt: skip
    assert names.labels([{"optimizer.lr": "1", "model.layer.lr": "2"}]) == ["optimizer.lr 1, model.layer.lr 2"]
    assert names.labels([{"kernel": "s4d"}, {"kernel": "diag"}]) == ["kernel=s4d", "kernel=diag"]
    assert names.labels([{}]) == ["all runs"]
    headings = [names.heading(name) for name in ("test/accuracy@5", "val/loss", "train/steps_per_second", "test/mse")]
    assert headings == ["accuracy@5 %", "validation loss", "training steps per second", "mse"]


def test_the_table_printed_fits_and_says_what_it_left_out(tmp_path):
    for seed, kernel in enumerate(("hope", "s4d", "hope", "s4d")):
        path = tmp_path / str(seed)
        path.mkdir()
        train = {"seed": seed // 2, "monitor": "val/accuracy", "mode": "max"}
        model = {"layer": {"mode": kernel, "d_state": 64}}
        (path / "config.yaml").write_text(
            yaml.safe_dump({"train": train, "model": model, "dataset": {}, "trainer": {}})
        )
        info = {"state": "finished", "overrides": [f"kernel={kernel}", f"train.seed={seed // 2}"], "started": str(seed)}
        info |= {"versions": {}, "machine": {}}
        (path / "run.json").write_text(json.dumps({**info, "parameters": 12345, "kernel_parameters": 2345}))
        results = {"test/accuracy": 0.9 + seed / 100, "test/loss": 0.1, "train/steps_per_second": 100.0 + seed}
        (path / "results.json").write_text(json.dumps({**results, "train/peak_memory_mib": 1000.0 + seed}))
    text = report.write(tmp_path, tmp_path / "report")
    table = text.split("\n\n")[0].splitlines()
    assert max(map(len, table)) <= 80
    assert "(no room here for: peak memory, MiB" in text
    assert "91.00 ± 1.41" in text
    written = (tmp_path / "report" / "report.md").read_text().splitlines()[0]
    assert written.endswith("| steps / s | peak memory, MiB |")
    chosen = report.write(tmp_path, tmp_path / "chosen", asked="accuracy,peak_memory_mib")
    assert " ".join(chosen.splitlines()[0].split()) == "configuration accuracy % peak memory, MiB"
    assert "peak memory" in (tmp_path / "chosen" / "report.tex").read_text()
