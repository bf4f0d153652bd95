"""docs/results.md against the stored runs, and the few lines of statistics behind its tables."""

from __future__ import annotations

import csv
import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import scipy.stats

from tiny import TINY

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tools():
    """The modules of the protocol: command, tasks, runs, statistics, page."""
    names = ("protocol", "protocol_tasks", "protocol_runs", "protocol_statistics", "protocol_page")
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        yield SimpleNamespace(**{name.removeprefix("protocol_"): importlib.import_module(name) for name in names})
    finally:
        sys.path.remove(str(ROOT / "tools"))
        for name in names:
            del sys.modules[name]


def test_the_page_says_what_the_stored_runs_say(tools):
    assert tools.protocol.main(["check"]) == 0


def test_the_readme_s_shares_of_energy_are_the_stored_ones(tools):
    """Of the kernels in its picture, beyond the noise, at periods of 32 steps and more."""
    with (tools.runs.STORE / tools.page.IN_README / "energy.csv").open(newline="") as file:
        shares = {(line["row"], line["band"]): float(line["mean"]) for line in csv.DictReader(file)}
    hope, s4d, s4 = (round(100 * shares[row, "periods of 32 steps and more"]) for row in ("hope", "s4d", "s4"))
    text = " ".join(tools.page.README.read_text(encoding="utf-8").split())
    assert f"trained HOPE has {hope} % of its energy beyond the 160 steps of noise, S4D {s4d} % and S4 {s4} %." in text
    assert shares["hope", "periods below 8 steps"] < 0.0005 < shares["s4d", "periods below 8 steps"]


@pytest.fixture
def stored(tools, tmp_path, monkeypatch):
    """A whole sweep of three rows, s4d far behind and still moving; and a page for it."""
    tasks, runs = tools.tasks, tools.runs
    monkeypatch.setattr(runs, "STORE", tmp_path)
    for page in ("PAGE", "README"):
        monkeypatch.setattr(tools.page, page, tmp_path / f"{page}.md")
    rows = {name: tasks.DIGITS[name] for name in ("hope", "s4d", "lru")}
    monkeypatch.setattr(tasks, "TASKS", {"digits": tasks.Task("", rows, tests=359)})
    level = {"hope": 0.97, "s4d": 0.6, "lru": 0.96}
    common = {"epochs": "4", "steps": "100", "epochs_to_90": "2", "kernel_parameters": "4160", "commit": "abc"}
    for stage, seeds in (("choice", tasks.Task.choosing), ("table", tasks.TABLE)):
        for row, (_, settings) in rows.items():
            for place, one in enumerate(settings if stage == "choice" else [[*settings][-1]]):
                for seed in seeds:
                    value = level[row] + 0.001 * place + 0.002 * seed % 7
                    before = 0.5 if row == "s4d" else value
                    runs.append("digits", common | {
                        "stage": stage, "row": row, "settings": one, "seed": str(seed), "validation": f"{value:.5f}",
                        "test": f"{value:.5f}", "curve": f"0.1 0.4 {before:.4f} {value:.4f}",
                    })  # fmt: skip
    for page in (tools.page.PAGE, tools.page.README):
        page.write_text("# Results\n<!-- results of digits -->\n<!-- end of digits -->\n")
    return tools


def test_a_page_that_drifted_is_refused(stored, capsys):
    main, page = stored.protocol.main, stored.page.PAGE
    assert main(["check"]) == 1
    assert main(["page"]) == 0
    assert main(["check"]) == 0
    text = page.read_text()
    assert "s4d | global, hope's | 4,160 | 60." in text
    assert "| worse so far |" in text
    assert "no difference shown" in text
    assert [line.split()[1] for line in text.splitlines() if "(still moving)" in line] == ["s4d"]
    page.write_text(text.replace("60.", "61.", 1))
    assert main(["check"]) == 1
    assert "differs" in capsys.readouterr().out


@pytest.mark.parametrize("column", ["4,160", "epochs to 90 %", "test %", "no difference shown"])
def test_the_readme_has_the_main_columns_and_is_checked_too(stored, column):
    main, readme = stored.protocol.main, stored.page.README
    assert main(["page"]) == 0
    text = readme.read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 5
    assert {row.count("|") for row in rows} == {7}
    assert column in text
    readme.write_text(text.replace(column, "other"))
    assert main(["check"]) == 1


def test_one_table_has_all_tasks(stored):
    """What is shown against the first row, and no word about the epochs of a row that leads elsewhere."""
    tasks, runs, page = stored.tasks, stored.runs, stored.page
    tasks.TASKS["other"] = tasks.Task("", {"s4d": tasks.DIGITS["s4d"], "rtf": tasks.DIGITS["rtf"]})
    for record in runs.stored("digits"):
        if record["row"] == "s4d":
            runs.append("other", record)
    page.PAGE.write_text(page.PAGE.read_text() + "<!-- results of all tasks -->\n<!-- end of all tasks -->\n")
    page.PAGE.write_text(page.PAGE.read_text() + "<!-- results of other -->\n<!-- end of other -->\n")
    assert stored.protocol.main(["page"]) == 0
    text = page.PAGE.read_text().split("<!-- results of all tasks -->")[1].split("<!-- end")[0]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.strip().splitlines()]
    assert [line[0] for line in lines] == ["row", "---", "hope", "s4d", "lru"]
    assert lines[0][1:] == ["digits, %", "other, %"]
    assert lines[3][1].endswith(" worse so far (2)")
    assert lines[4][1].endswith(" (2)")
    assert lines[2][2] == lines[4][2] == "–"
    assert stored.protocol.main(["check"]) == 0


def change(runs, row, **values):
    """Let every stored run of a row have other values."""
    records = runs.stored("digits")
    (runs.STORE / "digits" / "runs.csv").unlink()
    for record in records:
        runs.append("digits", record | (values if record["row"] == row else {}))


def test_a_row_that_has_ended_is_worse_without_so_far(stored):
    change(stored.runs, "s4d", curve="0.1 0.6 0.6 0.6")
    assert stored.protocol.main(["page"]) == 0
    text = stored.page.PAGE.read_text()
    assert "| worse |" in text
    assert "so far" not in text


@pytest.mark.parametrize(("epochs", "said"), [(9, "(9, later)"), (1, "(1, sooner)")])
def test_one_table_says_who_is_later(stored, epochs, said):
    """Of rows that are not shown to differ."""
    change(stored.runs, "lru", epochs_to_90=str(epochs))
    assert said in stored.page.overview()


def test_a_stored_sweep_without_a_place_is_refused(stored):
    stored.page.PAGE.write_text("# Results\n")
    with pytest.raises(ValueError, match="digits"):
        stored.protocol.main(["check"])


def test_choices_come_from_all_their_seeds(stored):
    tasks, runs = stored.tasks, stored.runs
    task, records = tasks.TASKS["digits"], runs.stored("digits")
    assert runs.chosen(task, records, "hope") == "global, common"
    missing = [r for r in records if not (r["row"] == "hope" and r["stage"] == "choice" and r["seed"] == "101")]
    assert runs.chosen(task, missing, "hope") is None
    assert stored.statistics.results(task, missing)[1] == ["hope"]
    twice = [r | {"seed": "100"} if r["stage"] == "choice" and r["seed"] == "101" else r for r in records]
    assert runs.chosen(task, twice, "hope") is None, "one seed that is stored twice is one seed"
    assert not runs.lacking("digits")
    tasks.TASKS["digits"].rows["s4"] = tasks.DIGITS["s4"]
    assert not runs.lacking("digits", ["hope", "lru"])
    assert runs.lacking("digits", ["lru", "s4"])[0][:2] == ("choice", "s4")
    with pytest.raises(SystemExit):
        stored.protocol.main(["run", "digits", "--rows", "s4;hoep"])


def test_a_longer_task_takes_the_choices_of_the_shorter_one_and_then_its_place(stored):
    """It makes the runs of its table alone, and its page says where the settings come from."""
    tasks, runs, page = stored.tasks, stored.runs, stored.page
    tasks.TASKS["digits"] = tasks.replace(tasks.TASKS["digits"], experiment="a=1 trainer.max_epochs=4 b=2")
    tasks.TASKS["long"] = long = tasks.twice("digits")
    assert long.experiment == "a=1 trainer.max_epochs=8 b=2"
    plan = runs.lacking("long")
    assert {(stage, row, one) for stage, row, one, _ in plan} == {
        ("table", "hope", "global, common"), ("table", "s4d", "global, hope's"), ("table", "lru", "global"),
    }  # fmt: skip
    assert page.table("long").startswith("No row is complete yet.")
    for _, row, one, seed in plan:
        assert not page.replaced("digits")
        assert "against hope" in page.table("digits")
        values = {"validation": "0.9", "test": "0.9", "epochs": "8", "curve": " ".join(["0.9"] * 8)}
        (record,) = (r for r in runs.stored("digits") if (r["stage"], r["row"], r["seed"]) == ("table", row, str(seed)))
        runs.append("long", record | {"settings": one} | values)
    assert not runs.lacking("long")
    table = page.table("long")
    assert "The settings are those chosen for digits" in table
    assert "trials" not in table
    assert all(end not in table for end in ("Not complete", "diverged", "still moving"))
    assert page.table("digits").startswith("The table has twice the epochs.\n\nBest validation of the trials")
    assert "digits" not in page.overview().splitlines()[0]
    drawn = runs.STORE / "digits" / "curves.png"
    drawn.touch()
    page.picture("digits")
    assert not drawn.exists()


def test_calls_beside_each_other_share_the_runs(stored, tmp_path, monkeypatch):
    """What another call is making is left to it, what it has made is not made again, and what fails is tried once."""
    tasks, runs, made = stored.tasks, stored.runs, []
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    rows = {"hope": ("", tasks.grid({"one": ""}))}
    monkeypatch.setitem(tasks.TASKS, "short", tasks.Task("", rows))

    def run(name, stage, row, settings, seed):
        made.append(seed)
        if seed != 3:
            runs.append("short", {"stage": stage, "row": row, "settings": settings, "seed": str(seed)})
        return seed != 3

    def wait(_):
        other.__exit__(None, None, None)
        run("short", *busy)

    monkeypatch.setattr(runs, "run", run)
    monkeypatch.setattr(runs.time, "sleep", wait)
    busy = ("table", "hope", "one", 1)
    other = runs.claimed("short", busy)
    assert other.__enter__()
    runs.run_all("short", ["hope"])
    assert made == [0, 2, 3, 4, 1]
    assert [seed for *_, seed in runs.lacking("short")] == [3]


@pytest.mark.slow
def test_a_run_that_diverges_counts_with_its_best_epoch(stored, tmp_path, monkeypatch):
    """One that does so in its first epoch has none and is not stored; the page says which runs diverged."""
    tasks, runs = stored.tasks, stored.runs
    line = "optimizer=sgd optimizer.lr=1e30 trainer.limit_train_batches={} trainer.max_epochs=4"
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    rows = {"late": (line.format(1), {"one": ""}), "at once": (line.format(2), {"one": ""})}
    task = tasks.Task(" ".join([*TINY, "+trainer.enable_progress_bar=false"]), rows, tests=359)
    monkeypatch.setitem(tasks.TASKS, "short", task)
    for row in rows:
        with runs.claimed("short", one := ("table", row, "one", 0)):
            assert runs.run("short", *one) == (row == "late")
    (record,) = runs.stored("short")
    assert record["epochs"] == "1"
    assert float(record["validation"]) < 0.3
    assert float(record["test"]) < 0.3
    change(runs, "lru", epochs="3", curve="0.1 0.2 0.3")
    lines = [line for line in stored.page.table("digits").splitlines() if line.startswith("| lru")]
    assert ["+0.0, 5 of 5 diverged |" in line for line in lines] == [True, False, False]
    assert [", diverged |" in line for line in lines] == [False, True, True]


def test_holm(tools):
    """The example of the definition, and never less than the raw value nor out of order."""
    assert tools.statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert tools.statistics.holm([0.5, 0.9]) == [1.0, 1.0]


def test_intervals_are_those_of_student_with_the_sampling_error_as_floor(tools):
    values = [0.91, 0.95, 0.93, 0.96, 0.92]
    mean, half, p = tools.statistics.interval(values, 0.0)
    low, high = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert p == pytest.approx(scipy.stats.ttest_1samp(values, 0).pvalue)
    assert tools.statistics.interval([0.93] * 5, 0.0004)[1] == pytest.approx(
        scipy.stats.t.ppf(0.975, 4) * 0.02 / 5**0.5
    )


def test_a_short_filter_sees_nothing_of_the_digit():
    """Two layers of 64 taps reach 126 steps back, and the outputs that are read begin 161 steps after the digit."""
    import torch

    from hope_ssm.layers.fftconv import FFTConvolution

    layers = [FFTConvolution(4, "conv", l_max=64, verbose=False) for _ in range(2)]
    noise = torch.rand(1, 192, 4)
    read = []
    for digit in (torch.zeros(1, 64, 4), torch.rand(1, 64, 4)):
        x = torch.cat([digit, noise], dim=1)
        for layer in layers:
            x = torch.nn.functional.gelu(layer(x)[0])
        read.append(x[:, -32:])
    torch.testing.assert_close(*read, rtol=0, atol=1e-5)
