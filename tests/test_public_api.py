"""The public names, pinned: a rename is a failing test."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import metadata

import pytest

import hope_ssm

SIGNATURES = {
    "transfer_function": "(markov_parameters, sampling_period, length, *, backend='auto')",
    "convolution_kernel": (
        "(markov_parameters, sampling_period, length, *, truncation='exact', backend='auto')"
    ),
    "hankel_matrix": "(markov_parameters)",
    "hankel_singular_values": "(markov_parameters)",
    "HopeKernel": (
        "(*, d_model, channels=1, l_max=None, dt_min=None, dt_max=None, dt_transform=None, n_ssm=None, "
        "deterministic=False, lr=mappingproxy({'dt': 0.001}), wd=0.0, verbose=True, d_state=64, horizon=None, "
        "init='gaussian', init_scale=2.0, truncation='exact', backend='auto', coefficients='real', **options)"
    ),
    "HopeBlock": "(d_model, *, transposed=True, **options)",
    "HopeLayer": "(d_model, *, kernel='hope', **options)",
    **dict.fromkeys(
        ("HopeClassifier", "HopeRegressor"),
        "(*, kernel='hope', d_model=64, n_layers=2, d_state=64, dropout=0.0, decoder_mode=None, lr=0.01, "
        "weight_decay=0.01, batch_size=32, max_epochs=50, validation_fraction=0.1, patience=10, standardize=True, "
        "overrides=(), device='auto', progress_bar=False, random_state=None)",
    ),
    "parameter_groups": "(module)",
}  # fmt: skip


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_names():
    assert sorted(hope_ssm.__all__) == [
        "HopeBlock", "HopeClassifier", "HopeKernel", "HopeLayer", "HopeRegressor", "__version__",
        "convolution_kernel", "hankel_matrix",
        "hankel_singular_values", "load", "parameter_groups", "registry", "transfer_function",
    ]  # fmt: skip
    assert dir(hope_ssm) == sorted(hope_ssm.__all__)
    for name in hope_ssm.__all__:
        assert getattr(hope_ssm, name) is not None


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name):
    signature = inspect.signature(getattr(hope_ssm, name))
    plain = signature.replace(
        parameters=[p.replace(annotation=p.empty) for p in signature.parameters.values()],
        return_annotation=signature.empty,
    )
    assert str(plain) == SIGNATURES[name]


def test_version_is_the_distribution_s():
    assert metadata.version("hope-ssm") == hope_ssm.__version__


def test_unknown_name():
    with pytest.raises(AttributeError, match="module 'hope_ssm' has no attribute 'Hope'; its public names are Hope"):
        hope_ssm.Hope  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Hope'"):
        from hope_ssm import Hope  # noqa: F401


def test_import_is_light():
    """Neither torch nor Hydra nor Lightning, and not numpy either."""
    result = run(
        "import sys, hope_ssm; dir(hope_ssm); hope_ssm.__version__\n"
        "print([m for m in ('torch', 'hydra', 'omegaconf', 'pytorch_lightning', 'numpy') if m in sys.modules])"
    )
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.slow
def test_kernels_and_layers_need_neither_hydra_nor_lightning():
    result = run(
        "import sys\n"
        "from hope_ssm import HopeKernel, HopeLayer, convolution_kernel, hankel_singular_values\n"
        "from hope_ssm import parameter_groups, registry\n"
        "HopeLayer(4, d_state=4)\n"
        "[entry.load() for entry in registry.kernels().values()]\n"
        "print([m for m in ('hydra', 'omegaconf', 'pytorch_lightning', 'src') if m in sys.modules])"
    )
    assert result.stdout.strip() == "[]", result.stderr


def test_the_hydra_plugin_loads_no_torch():
    """Hydra loads it in every application of the environment."""
    result = run("import sys, hope_ssm.hydra_searchpath\nprint('torch' in sys.modules, 'src' in sys.modules)")
    assert result.stdout.strip() == "False False", result.stderr
