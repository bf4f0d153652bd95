"""The zero-touch mechanism, proved on a stand-in with the host's module names, each case in its own process."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from distributions import add_distribution

OURS = "Entry"


def result(done) -> dict:
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture
def broken_package(tmp_path: Path) -> Path:
    """Return a directory whose ``hope_ssm`` cannot be imported, with an error that Hydra does not forgive."""
    package = tmp_path / "broken" / "hope_ssm"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('half an installation')\n")
    return package.parent


@pytest.mark.slow
def test_a_hydra_application_that_is_the_host_gets_everything(stand_in, python):
    found = result(python("main.py", "+kernel=hope", directory=stand_in))
    assert found["kernels"]["hope"] == found["kernels"]["hope-bands"] == OURS
    assert found["kernels"]["s4d"] == "str", "the host's own entry must win"
    assert found["kernels"]["conv"] == "str"
    assert {"cifar", "noisy-cifar", "noisy-digits", "mnist-5000", "noisy-mnist", "tones"} <= set(found["datasets"])
    assert "tail_pool" in found["decoders"]
    assert found["config"]["model"]["layer"]["mode"] == "hope", "our configuration groups must be on the search path"
    assert found["loaded"] == [], "entries must be lazy"


@pytest.mark.slow
def test_kernels_of_other_distributions_join_unloaded(stand_in, python, tmp_path):
    site = add_distribution(tmp_path / "site", "third-party", "third = third_party:Kernel\nema = third_party:Average")
    (site / "third_party.py").write_text("raise RuntimeError('imported too early')\n")
    found = result(python("main.py", directory=stand_in, path=(site,)))
    assert found["kernels"]["third"] == OURS
    assert found["kernels"]["ema"] == "str", "the host's own entry must win"
    assert found["loaded"] == []


@pytest.mark.slow
def test_two_distributions_with_one_name_leave_ours_and_a_warning_that_names_both(stand_in, python, tmp_path):
    site = add_distribution(tmp_path / "site", "third-party", "hope = third_party:Kernel")
    done = python("main.py", directory=stand_in, path=(site,))
    assert result(done)["kernels"]["hope"] == OURS
    said = done.stdout + done.stderr
    assert "third-party" in said
    assert "hope-ssm" in said


@pytest.mark.slow
def test_registration_before_and_after_import_and_only_once(stand_in, python):
    code = """
        import sys
        import src.dataloaders, src.models.sequence.kernels as kernels
        assert "hope" not in kernels.registry
        import hope_ssm.hydra_searchpath as plugin
        assert "hope" in kernels.registry
        assert "noisy-digits" in src.dataloaders.SequenceDataset.registry
        import src.tasks.decoders as decoders, src.utils.registry
        assert set(src.utils.registry.callbacks) == {"timer", "hankel"}
        assert "tail_pool" in decoders.registry
        assert decoders.model_attrs["tail_pool"] == decoders.dataset_attrs["tail_pool"] == ["d_output"]
        assert type(decoders.__loader__).__name__ == type(decoders.__spec__.loader).__name__ == "SourceFileLoader"
        before = dict(kernels.registry), dict(decoders.registry), dict(src.dataloaders.SequenceDataset.registry)
        plugin.install()
        from hope_ssm.hosts import state_spaces
        assert state_spaces.register() is None
        assert before == (kernels.registry, decoders.registry, src.dataloaders.SequenceDataset.registry)
        assert sum(type(finder).__name__ == "HostFinder" for finder in sys.meta_path) == 1
        import importlib
        importlib.reload(kernels)
        assert "hope" in kernels.registry
        """
    done = python("-c", textwrap.dedent(code), directory=stand_in)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_worker_that_only_unpickles_the_plugin_registers_too(stand_in, python, tmp_path):
    state = tmp_path / "state.pickle"
    write = f"""
        import pickle
        from hydra.core.plugins import Plugins
        pickle.dump(Plugins.instance(), open({str(state)!r}, "wb"))
        """
    read = f"""
        import pickle
        pickle.load(open({str(state)!r}, "rb"))
        import src.models.sequence.kernels as kernels
        assert "hope" in kernels.registry
        """
    for code in (write, read):
        done = python("-c", textwrap.dedent(code), directory=stand_in)
        assert done.returncode == 0, done.stderr


def test_plugin_is_found_once_and_loads_no_torch(python):
    code = """
        import sys
        from hydra.core.plugins import Plugins
        from hydra.plugins.search_path_plugin import SearchPathPlugin
        names = [plugin.__name__ for plugin in Plugins.instance().discover(SearchPathPlugin)]
        assert names.count("HopeSearchPath") == 1, names
        heavy = [name for name in ("torch", "numpy", "scipy", "pytorch_lightning") if name in sys.modules]
        assert not heavy, heavy
        """
    done = python("-c", textwrap.dedent(code))
    assert done.returncode == 0, done.stderr


APPLICATION = """
    import hydra

    @hydra.main(config_path=None, version_base=None)
    def main(config):
        import sys
        print("ran", "torch" in sys.modules)

    main()
    """


@pytest.fixture
def application(tmp_path: Path) -> Path:
    """Return a Hydra application that has nothing to do with the host."""
    file = tmp_path / "application.py"
    file.write_text(textwrap.dedent(APPLICATION))
    return file


def test_another_application_is_left_alone(python, application):
    done = python(str(application))
    assert done.stdout.strip() == "ran False", done.stderr
    shown = python(str(application), "--info", "searchpath")
    assert "hydra.conf" in shown.stdout, shown.stderr
    assert "hope" not in shown.stdout


@pytest.mark.parametrize("error", ["RuntimeError('half an installation')", "ImportError('gone')", "SyntaxError('?')"])
def test_a_broken_plugin_breaks_no_application(python, application, broken_package, error):
    (broken_package / "hope_ssm" / "__init__.py").write_text(f"raise {error}\n")
    done = python(str(application), path=(broken_package,))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("ran False")
    assert "hope-ssm's Hydra plug-in could not be loaded" in done.stderr


@pytest.mark.slow
def test_a_registration_that_fails_is_one_warning_and_the_host_goes_on(stand_in, python, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import sys\nsys.modules['hope_ssm.registry'] = None\n")
    done = python("main.py", directory=stand_in, path=(site,))
    assert "hope" not in result(done)["kernels"]
    assert (done.stdout + done.stderr).count("hope-ssm could not register itself in src.models.sequence.kernels") == 1


def test_another_project_with_the_same_module_names_is_not_disturbed(python, tmp_path):
    package = tmp_path / "src" / "dataloaders"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("things = 1\n")
    done = python("-c", "import hope_ssm.hydra_searchpath, src.dataloaders as d; assert d.things == 1")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "a package that merely has the name must not even be warned about"


def test_register_without_a_host_says_what_to_set(python):
    done = python("-c", "from hope_ssm.hosts.state_spaces import register; register()")
    assert done.returncode == 1
    assert "Start in the checkout or set STATE_SPACES_HOME to it." in done.stderr.splitlines()[-1]
