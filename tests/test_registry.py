"""registry.yaml, the entry points, and other distributions that join."""

from __future__ import annotations

import importlib
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
import yaml

from hope_ssm import registry

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
OWN = registry.own_entries()

THIRD_PARTY = """
import torch

class Moving(torch.nn.Module):
    family = "moving average"
    parameters = "n"
    recurrent = False
    summary = "For the tests."

    def __init__(self, *, d_model, channels=1, **options):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(channels, d_model, 1))

    def forward(self, L=None, rate=1.0, state=None):
        return self.weight.expand(-1, -1, L), None
"""


@pytest.fixture
def join(tmp_path, monkeypatch):
    """Declare kernels as another distribution would: files and a dist-info on sys.path."""
    registry._installed.cache_clear()
    monkeypatch.syspath_prepend(tmp_path)

    def declare(distribution, entry_points, source=THIRD_PARTY):
        module = distribution.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        lines = "\n".join(f"{name} = {module}:{attribute}" for name, attribute in entry_points.items())
        (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{lines}\n")
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, module, raising=False)

    yield declare
    registry._installed.cache_clear()


# The one list


def test_entry_points_equal_the_registry():
    with (ROOT / "pyproject.toml").open("rb") as file:
        declared = tomllib.load(file)["project"]["entry-points"][registry.GROUP]
    assert declared == {name: entry.target for name, entry in OWN.items()}


def test_installed_entry_points_equal_the_registry():
    """A stale installation shows here: install again."""
    installed = {
        point.name: point.value for point in metadata.entry_points(group=registry.GROUP)
        if point.dist.name == registry.DISTRIBUTION
    }  # fmt: skip
    assert installed == {name: entry.target for name, entry in OWN.items()}


def test_the_packaged_list_is_the_one_at_the_top():
    packaged = ROOT / "plugin" / "hope_ssm" / "registry.yaml"  # a link here, a copy in the sdist
    assert packaged.read_text(encoding="utf-8") == (ROOT / "registry.yaml").read_text(encoding="utf-8")
    assert list(yaml.safe_load((ROOT / "registry.yaml").read_text())) == list(OWN)


@pytest.mark.parametrize("name", OWN)
def test_every_target_imports_and_every_row_is_complete(name):
    entry = OWN[name]
    kernel = entry.load()
    assert issubclass(kernel, torch.nn.Module)
    assert kernel.name == name
    assert entry.distribution == registry.DISTRIBUTION
    assert isinstance(entry.recurrent, bool)
    assert isinstance(entry.requires, tuple)
    assert entry.family != "–"
    assert entry.summary.endswith(".")
    for alias in entry.aliases:
        assert registry.get(alias) is registry.get(name) is kernel


def test_no_name_means_two_kernels():
    every = [name for entry in OWN.values() for name in (entry.name, *entry.aliases)]
    assert len(every) == len(set(every))


@pytest.mark.parametrize("name", OWN)
def test_stated_number_of_parameters(name):
    """Of one system: one feature, one channel."""
    formula = re.sub(r"(\d)([nG])", r"\1 * \2", OWN[name].parameters)
    for n in (4, 10):
        kernel = OWN[name](d_model=1, d_state=n, l_max=2 * n + 1, verbose=False)
        sizes = {"n": n, "l_max": 2 * n + 1, "G": getattr(kernel, "bands", None)}
        assert sum(p.numel() for p in kernel.parameters()) == eval(formula, sizes)


def test_an_entry_builds_its_kernel():
    """So an entry can stand unloaded in the host's table, which calls what it holds."""
    kernel = registry.names()["hankel"](d_model=3, d_state=4, verbose=False)
    assert type(kernel) is registry.get("hope")


# Other distributions


def test_another_distribution_joins(join):
    join("moving-kernels", {"moving": "Moving"})
    entry = registry.kernels()["moving"]
    assert entry.distribution == "moving-kernels"
    assert entry.family == "–"
    described = entry.described()
    assert (described.family, described.parameters, described.recurrent, described.summary) == (
        "moving average", "n", False, "For the tests.",
    )  # fmt: skip
    assert registry.get("moving").__name__ == "Moving"
    assert registry.names()["moving"](d_model=2)(L=3)[0].shape == (1, 2, 3)
    assert list(registry.kernels())[: len(OWN)] == list(OWN)


def test_it_appears_on_the_command_line(join, capsys):
    join("moving-kernels", {"moving": "Moving"})
    main = importlib.import_module("hope_ssm.cli.main").main
    assert main(["kernels"]) == 0
    (row,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("moving "))
    assert re.split(r"\s{2,}", row) == ["moving", "–", "moving average", "n", "no", "moving-kernels"]


def test_it_is_a_choice_of_kernel_and_of_what_is_listed(join):
    from hope_ssm.hydra_searchpath import offer_kernels
    from hope_ssm.workbench.configuration import compose

    join("swap-kernels", {"swapped": "Moving"})
    offer_kernels()  # as at the start of a process, where Hydra loads its plug-ins
    assert compose(["pipeline=noisy-digits", "kernel=swapped"])["model"]["layer"]["mode"] == "swapped"
    assert compose(["pipeline=noisy-digits", "+kernel=reduced"])["model"]["layer"]["n_ssm"] is None
    with pytest.raises(ValueError, match=r"kernel must be one of .*, swapped; got 'swaped'\. Did you mean 'swapped'"):
        compose(["kernel=swaped"])


def test_it_is_not_imported_before_it_is_asked_for(join):
    join("silent-kernels", {"silent": "Moving"})
    registry.kernels()
    registry.names()
    assert "silent_kernels" not in sys.modules


def test_a_distribution_seen_twice_is_one(join, monkeypatch):
    """Its metadata may lie in two directories of sys.path, under another spelling of its name."""
    join("moving-kernels", {"moving": "Moving"})
    points = list(metadata.entry_points(group=registry.GROUP))
    monkeypatch.setattr(registry.metadata, "entry_points", lambda group: points + points)
    assert [entry.name for entry in registry.foreign_entries()] == ["moving"]
    assert "moving" in registry.kernels()


@pytest.mark.parametrize("name", ["hope", "hankel", "s4d", "diag"])
def test_our_names_and_aliases_are_taken_and_what_else_a_rival_has_stays(join, name, capsys, caplog):
    join("other-kernels", {name: "Moving", "moving": "Moving"})
    found = registry.names()
    assert found[name].distribution == registry.DISTRIBUTION
    assert found["moving"].distribution == "other-kernels"
    (sentence,) = registry.clashes()
    assert sentence.startswith(f"the kernel {name!r} of other-kernels is not used: hope-ssm has that name")
    assert [record.getMessage() for record in caplog.records] in ([sentence], [])  # once in a process
    assert importlib.import_module("hope_ssm.cli.main").main(["kernels"]) == 0
    assert sentence[1:] in capsys.readouterr().out


def test_of_two_others_the_first_keeps_a_name(join):
    join("second-kernels", {"moving": "Moving", "still": "Moving"})
    join("first-kernels", {"moving": "Moving"})
    found = registry.kernels()
    assert found["moving"].distribution == "first-kernels"
    assert found["still"].distribution == "second-kernels"
    (sentence,) = registry.clashes()
    assert sentence.startswith("the kernel 'moving' of second-kernels is not used: first-kernels has that name")


@pytest.mark.parametrize(
    ("source", "got"),
    [
        ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
        ("import a_module_that_is_not_there", "ModuleNotFoundError: No module named 'a_module_that_is_not_there'"),
        ("x = (", "SyntaxError"),
        ("x = 1", "AttributeError: module 'broken_kernels' has no attribute 'Moving'"),
    ],
)
def test_a_broken_distribution_breaks_itself_alone(join, capsys, source, got):
    join("broken-kernels", {"broken": "Moving"}, source=source)
    assert registry.get("hope") is OWN["hope"].load()
    with pytest.raises(ImportError) as caught:
        registry.get("broken")
    message = str(caught.value)
    assert message.startswith("kernel 'broken' of broken-kernels must be importable from broken_kernels:Moving; got ")
    assert got in message
    assert message.endswith("Reinstall broken-kernels.")
    assert registry.kernels()["broken"].described().summary == "does not import"
    assert importlib.import_module("hope_ssm.cli.main").main(["kernels"]) == 0
    assert "broken-kernels" in capsys.readouterr().out


def test_what_a_kernel_requires_is_said():
    entry = registry.Entry("absent", "a_module_that_is_not_there:Kernel", "hope-ssm", requires=("pykeops",))
    with pytest.raises(ImportError, match=r"No module named .* It needs pykeops\. Reinstall hope-ssm\."):
        entry.load()


def test_unknown_name_raises_with_the_nearest():
    with pytest.raises(ValueError, match=r"kernel must be one of hope, .*; got 'hoope'\. Did you mean 'hope'\?"):
        registry.get("hoope")
