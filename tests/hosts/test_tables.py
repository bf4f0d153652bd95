"""The tables of the host with ours in them, on stand-ins: unknown names, models without a kernel, rivals."""

from __future__ import annotations

import logging
import sys
import types

import pytest
import torch
from omegaconf import OmegaConf

from hope_ssm import HopeKernel, checks, registry
from hope_ssm.hosts import state_spaces, tables


class Diagonal(torch.nn.Module):
    """A kernel of the host."""

    def __init__(self, **options):
        super().__init__()


Diagonal.__module__ = "src.models.sequence.kernels.ssm"


class Backbone(torch.nn.Module):
    """A model that makes one layer as the host does, by its kind."""

    def __init__(self, d_model, layer=None, n_layers=1):
        super().__init__()
        layer = dict(layer)
        kind = layer.pop("_name_")
        if kind == "s4":
            table = sys.modules["src.models.sequence.kernels"].registry
            self.layer = table[layer.pop("mode")](d_model=d_model, **layer)
        elif kind == "strict":
            self.layer = torch.nn.Identity() if not layer else strict(**layer)
        else:  # swallows what it does not know
            self.layer = torch.nn.Identity()


def strict(size=1):
    """A layer that takes one option."""


@pytest.fixture
def host(monkeypatch):
    """The table of models of a host with two kernels of its own and ours."""
    kernels = types.ModuleType("src.models.sequence.kernels")
    kernels.registry = {"s4d": Diagonal, "ema": Diagonal}
    monkeypatch.setitem(sys.modules, kernels.__name__, kernels)
    tables.add(tables.replace(kernels, "registry", tables.Kernels), registry.names())
    models = types.ModuleType("src.utils.registry")
    models.model = {"model": f"{__name__}.Backbone", "lstm": "torch.nn.LSTM"}
    return tables.replace(models, "model", tables.Models)


HOPE = {"mode": "hope", "d_state": 4, "l_max": 9, "verbose": False}


def test_a_model_with_the_kernel_is_built(host):
    layer = OmegaConf.create({"_name_": "s4", **HOPE})
    assert isinstance(host["model"](d_model=3, layer=layer).layer, HopeKernel)
    assert isinstance(host["model"](d_model=3, layer={"_name_": "s4", "mode": "s4d"}).layer, Diagonal)
    assert isinstance(host["lstm"](2, 3), torch.nn.LSTM)
    assert isinstance(host["model"](d_model=3, layer={"_name_": "vit"}).layer, torch.nn.Identity)


@pytest.mark.parametrize("kind", ["vit", "strict"])
@pytest.mark.parametrize("kernel", ["hope", "s4d", "lru"])
def test_a_model_without_a_place_for_it_is_refused(host, kind, kernel):
    layer = {"_name_": kind, "mode": kernel, "horizon": None}
    with pytest.raises(
        ValueError, match=f"must hold the kernel '{kernel}' .* 'model' with layer '{kind}' has no place"
    ):
        host["model"](d_model=3, layer=OmegaConf.create(layer))


def test_a_model_that_takes_no_layer_is_refused(host):
    with pytest.raises(ValueError, match=r"must hold the kernel 'hope' .*; model 'lstm' with layer 's4' has no place"):
        host["lstm"](input_size=2, hidden_size=3, layer={"_name_": "s4", **HOPE})


def test_other_mistakes_keep_their_own_words(host):
    with pytest.raises(TypeError, match="unexpected keyword argument 'n_layer'"):
        host["model"](d_model=3, n_layer=2, layer={"_name_": "s4", **HOPE})
    with pytest.raises(TypeError, match=r"strict\(\) got an unexpected keyword argument 'linear'"):
        host["model"](d_model=3, layer={"_name_": "strict", "linear": True, "mode": "hope"})
    with pytest.raises(TypeError, match="the hope kernel has no option 'd_stat'"):
        host["model"](d_model=3, layer={"_name_": "s4", **HOPE, "d_stat": 3})


def test_an_unknown_kernel_is_answered_with_the_nearest(host):
    with pytest.raises(ValueError, match=r"mode must be one of s4d, ema, hope, .*; got 'hoep'. Did you mean 'hope'\?"):
        host["model"](d_model=3, layer={"_name_": "s4", "mode": "hoep"})


def test_an_unknown_layer_is_answered_with_the_nearest():
    module = types.ModuleType("src.utils.registry")
    module.layer, module.callbacks = {"fftconv": "src.kernels.FFTConv"}, {}
    state_spaces.register_layers(module)
    assert module.layer["fftconv"] == "src.kernels.FFTConv"
    said = r"layer must be one of fftconv, grouped_fftconv, .*; got 'groupd_fftconv'. Did you mean 'grouped_fftconv'\?"
    with pytest.raises(ValueError, match=said):
        module.layer["groupd_fftconv"]


def test_a_kernel_of_the_host_without_a_range_is_refused(host):
    layer = {"_name_": "s4", "mode": "s4d", "dt_min": None, "dt_max": None}
    with pytest.raises(
        ValueError, match="dt_min and dt_max of the host's kernel 's4d' must be numbers above 0; got null"
    ):
        host["model"](d_model=3, layer=layer)
    assert host["model"](d_model=3, layer={"_name_": "s4", **HOPE, "dt_min": None})


OF_S4 = {"n_ssm": 1, "dt_min": 0.001, "dt_max": 0.1}


def test_what_the_file_of_a_layer_sets_for_s4_is_said_once_with_the_mend(host, caplog, monkeypatch):
    monkeypatch.setattr(checks, "_said", set())
    caplog.set_level(logging.WARNING, logger="hope_ssm")
    for _ in range(2):
        host["model"](d_model=3, layer={"_name_": "s4", **HOPE, **OF_S4})
    (said,) = [record.getMessage() for record in caplog.records if "mode=hope" in record.getMessage()]
    assert "mode=hope keeps what the file of the layer sets for S4: n_ssm=1, dt_min=0.001, dt_max=0.1. " in said
    assert "Put +kernel=hope (or model/layer=hope) in its place" in said
    caplog.clear()
    for layer in (HOPE | OF_S4 | {"dt_min": None, "dt_max": None}, OF_S4 | {"mode": "lru"}, HOPE | {"dt_min": 0.01}):
        try:
            host["model"](d_model=3, layer={"_name_": "s4", **layer})
        except TypeError:  # a kernel that has no such option
            assert layer["mode"] == "lru"
    assert not [record for record in caplog.records if "in its place" in record.getMessage()]


def test_tables_that_the_host_has_taken_are_replaced_too(monkeypatch):
    kernels, user = types.ModuleType("kernels"), types.ModuleType("src.models.sequence.kernels.fftconv")
    kernels.registry = user.kernel_registry = {"s4d": Diagonal}
    monkeypatch.setitem(sys.modules, user.__name__, user)
    table = tables.replace(kernels, "registry", tables.Kernels)
    assert kernels.registry is user.kernel_registry is table is tables.replace(kernels, "registry", tables.Kernels)


def test_a_rival_of_the_host_is_named_once(caplog, monkeypatch):
    monkeypatch.setattr(checks, "_said", set())
    caplog.set_level(logging.WARNING, logger="hope_ssm")
    table = {"ema": Diagonal, "s4d": Diagonal}
    rival = registry.Entry("ema", "third_party:Average", "third-party")
    third = registry.Entry("third", "third_party:Kernel", "third-party")
    for _ in range(2):
        tables.add(table, {"ema": rival, "third": third, "s4d": registry.own_entries()["s4d"]})
    assert (table["ema"], table["third"], table["s4d"]) == (Diagonal, third, Diagonal)
    (record,) = caplog.records
    assert record.getMessage() == (
        "the kernel 'ema' of third-party is not used here: state-spaces/s4 has its own of this name."
    )
