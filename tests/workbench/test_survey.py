"""Damaged runs are named and left out; the others are listed and reported."""

from __future__ import annotations

import json
import os
import re
import shutil

import pytest
import yaml

from hope_ssm.cli import report, runs
from hope_ssm.workbench.run_directory import RunDirectory
from hope_ssm.workbench.survey import damage, find_runs, survey
from runs import LONGER, run


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A finished run of four epochs."""
    place = tmp_path_factory.mktemp("sound") / "run"
    run(place, *LONGER, "train.test=true")
    return place


def _cut(share):
    def apply(path):
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return apply


def _edit(change):
    def apply(path):
        load, dump = (json.loads, json.dumps) if path.suffix == ".json" else (yaml.safe_load, yaml.safe_dump)
        content = load(path.read_text())
        path.write_text(dump(change(content)))

    return apply


def _without(key):
    return _edit(lambda content: {k: v for k, v in content.items() if k != key})


def _folder(path):
    path.unlink()
    path.mkdir()


def _last_line(path):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


DAMAGES = {
    **{
        f"{kind} {name}": (name, apply, name)
        for name in ("run.json", "config.yaml", "results.json", "metrics.csv")
        for kind, apply in {
            "noise in": lambda path: path.write_bytes(os.urandom(400)),
            "a folder for": _folder,
        }.items()
        if (kind, name) != ("a folder for", "run.json")  # then it is no run
    },
    "half a run.json": ("run.json", _cut(0.5), "run.json cannot be read"),
    "an empty run.json": ("run.json", _cut(0), "run.json cannot be read"),
    "half a results.json": ("results.json", _cut(0.5), "results.json cannot be read"),
    "a list as run.json": ("run.json", _edit(list), "run.json holds no mapping"),
    "no state": ("run.json", _without("state"), "run.json has no state"),
    "no start": ("run.json", _edit(lambda content: {**content, "started": 3}), "run.json has no started"),
    "an empty configuration": ("config.yaml", _cut(0), "config.yaml holds no mapping"),
    "half a configuration": ("config.yaml", _cut(0.3), "config.yaml"),
    "no data set": ("config.yaml", _without("dataset"), "config.yaml has no dataset"),
    "no seed": ("config.yaml", _edit(lambda c: {**c, "train": {"monitor": "val/loss"}}), "has no train.seed"),
    "no configuration": ("config.yaml", lambda path: path.unlink(), "config.yaml is missing"),
    "no results": ("results.json", lambda path: path.unlink(), "results.json is missing"),
    "words as results": ("results.json", _edit(lambda c: {**c, "val/loss": "low"}), "no number for val/loss"),
    "a number cut short": ("metrics.csv", lambda path: path.write_bytes(path.read_bytes()[:-3]), "cut or damaged"),
    "a row cut short": ("metrics.csv", _cut(0.9), "metrics.csv"),
    "a row too few": ("metrics.csv", _last_line, "metrics.csv has 3 of 4 epochs"),
    "words in the table": (
        "metrics.csv", lambda p: p.write_text(p.read_text().replace("\n0,", "\nzero,", 1)), "metrics.csv is damaged"
    ),
    "no epochs in the table": (
        "metrics.csv", lambda p: p.write_text(p.read_text().replace("epoch", "time", 1)), "rows without epoch"
    ),
}  # fmt: skip


def _beside_a_sound_one(place, sound, kind):
    for name in ("a", "b"):
        shutil.copytree(sound, place / name)
    name, apply, _ = DAMAGES[kind]
    apply(place / "b" / name)
    return survey(place)


@pytest.mark.parametrize("kind", DAMAGES)
def test_one_damaged_run_is_named_and_the_others_are_there(tmp_path, sound, kind):
    said = DAMAGES[kind][2]
    found, damaged = _beside_a_sound_one(tmp_path, sound, kind)
    assert [r.path for r in found] == [tmp_path / "a"] == [r.path for r in find_runs(tmp_path)]
    assert list(damaged) == [tmp_path / "b"]
    assert said in damaged[tmp_path / "b"]


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=() if k == "a row too few" else pytest.mark.slow) for k in DAMAGES]
)
def test_the_commands_leave_it_out_and_say_so(tmp_path, sound, kind, capsys):
    _, damaged = _beside_a_sound_one(tmp_path, sound, kind)
    assert runs.run([str(tmp_path)]) == 0
    listed = capsys.readouterr().out
    assert f"Left out, damaged: {tmp_path / 'b'} ({damaged[tmp_path / 'b']})." in listed
    assert report.run([str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert f"Left out, damaged: {tmp_path / 'b'} (" in text
    assert re.search(r"^all runs +1 ", text, re.MULTILINE)


def test_a_tree_of_damaged_runs_is_said(tmp_path, sound, capsys):
    shutil.copytree(sound, tmp_path / "a")
    (tmp_path / "a" / "run.json").write_text("{")
    assert runs.run([str(tmp_path)]) == 0
    assert "Left out, damaged" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"must hold finished runs; .*a is damaged"):
        report.run([str(tmp_path)])


def test_sound_runs_of_every_state_are_not_damaged(tmp_path, sound):
    assert damage(RunDirectory(sound)) is None
    shutil.copytree(sound, tmp_path / "a")
    (tmp_path / "a" / "results.json").unlink()
    for state in ("running", "interrupted", "failed"):
        RunDirectory(tmp_path / "a").end(state)
        assert damage(RunDirectory(tmp_path / "a")) is None
    (tmp_path / "a" / "metrics.csv").unlink()
    RunDirectory(tmp_path / "a").end("failed")
    assert damage(RunDirectory(tmp_path / "a")) is None


def test_a_mean_says_of_how_many_seeds_it_is(tmp_path, sound, capsys):
    for place, seed in (("a", 0), ("b", 1), ("c", 2)):
        shutil.copytree(sound, tmp_path / place)
        _edit(lambda content, seed=seed: {**content, "train": {**content["train"], "seed": seed}})(
            tmp_path / place / "config.yaml"
        )
    _without("test/accuracy")(tmp_path / "b" / "results.json")
    report.run([str(tmp_path)])
    text = capsys.readouterr().out
    assert "(2 of 3)" in text
    assert (tmp_path / "report" / "report.csv").read_text().count("test/accuracy n") == 1
