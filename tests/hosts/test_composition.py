"""One override line composes to the same model, optimizer and scheduler in the real host and in the workbench.

Runs when STATE_SPACES_HOME names a checkout; see conftest.py.
"""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from hope_ssm.layers.parameter_groups import parameter_groups
from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.training import build

DIGITS = ["pipeline=noisy-digits", "dataset.l_noise=16"]
GATED = ["model.layer.gate=4", "model.layer.gate_act=gelu", "model.layer.bottleneck=4", "model.layer.final_act=id"]
SCHEDULERS = ["constant", "constant_warmup", "cosine", "cosine_epochs", "cosine_warmup", "linear_warmup", "multistep"]
SCHEDULERS += ["plateau", "step"]
MEMORY, FILTER = "++model.layer.input_memory.size=3", "++model.layer.frequency_filter.exponent=0.5"
TASKS = ["listops", "text", "retrieval", "image", "pathfinder", "pathx"]
LINES = {
    "mode": [*DIGITS, "model=s4", "model.layer.mode=hope"],
    "layer_group": [*DIGITS, "model/layer=hope", "model.layer.lr.dt=0.01", "optimizer.weight_decay=0.05"],
    "kernel_group": [*DIGITS, "+kernel=hope", "model.layer.wd=0.1", "optimizer.lr=.004", "model.layer.n_ssm=2"],
    "no_own_rates": [*DIGITS, "+kernel=hope", "model.layer.lr=null", "model.layer.channels=2", "model.norm=batch"],
    "bare_rate": [*DIGITS, "model/layer=hope", "model.layer.lr=0.002", "model.prenorm=false", "model.norm=group"],
    "experiment": ["experiment=hope/noisy-digits", "dataset.l_noise=16", "model.layer.lr.dt=0"],
    "bidirectional": [*DIGITS, "+kernel=hope", "model.layer.bidirectional=true", "+model.layer.dropout=0.1"],
    "two_layers": [*DIGITS, "+kernel=hope", "model.bidirectional=true", "model.residual=D", "model.tie_dropout=false"],
    "pooled": [*DIGITS, "+kernel=hope", "model.pool.stride=2", "model.pool.expand=2", "decoder.l_tail=4"],
    "maps": [*DIGITS, "+kernel=hope", "model.layer.activation=swish", "model.layer.final_act=glu-silu"],
    "gated": [*DIGITS, "+kernel=hope", *GATED],
    "s4d": [*DIGITS, "+kernel=s4d", "model.layer.d_state=32", "optimizer.lr=.004", "optimizer=adam"],
    "s4": ["experiment=hope/noisy-digits", "kernel=s4", "model.layer.rank=2", "optimizer.betas=[0.9,0.95]"],
    "s4_hippo": [*DIGITS, "+kernel=s4-hippo"],
    "s4d_real": [*DIGITS, "+kernel=s4d-real"],
    "dss": [*DIGITS, "+kernel=dss-softmax"],
    "stable": [*DIGITS, "+kernel=stable", "model.layer.reparameterization=exp"],
    "lru": [*DIGITS, "+kernel=lru", "model.layer.r_min=0.5"],
    "rtf": [*DIGITS, "+kernel=rtf", "model.layer.init_scale=1"],
    "conv": [*DIGITS, "+kernel=conv", "optimizer=sgd", "optimizer.momentum=0.8", "model.dropout=0.2"],
    "host_layer": [*DIGITS, "model/layer=s4d", "model.layer.dt_max=0.5", "model.transposed=true"],
    "cifar": ["pipeline=cifar", "model=s4", "+kernel=hope", "dataset.grayscale=true"],
    "cifar_layer": ["pipeline=cifar", "model=s4", "model/layer=hope", "dataset.permute=snake"],
    "cifar_bands": ["pipeline=cifar", "model=s4", "+kernel=hope-bands"],
    "plain": [*DIGITS, "model/layer=hope", "model.layer.layer=fftconv"],
    "essm": [*DIGITS, "model/layer=essm", "model.layer.heads=2"],
    "s5": [*DIGITS, "model/layer=s5"],
    "linoss": [*DIGITS, "model/layer=linoss", "model.layer.discretization=damped", "model.layer.lr=0.002"],
    "memory": [
        *DIGITS,
        "+kernel=hope",
        "++model.layer.layer=input_memory_fftconv",
        "++model.layer.input_memory.size=3",
    ],
    "filter": [*DIGITS, "+kernel=hope", "++model.layer.layer=grouped_fftconv", FILTER],
    **{f"{family}/{task}": [f"experiment={family}/lra-{task}"] for family in ("s4d-ft", "essm") for task in TASKS},
    **{name: [*DIGITS, f"scheduler={name}"] for name in SCHEDULERS},
}
BUILT = ["mode", "layer_group", "kernel_group", "no_own_rates", "bare_rate", "experiment", "bidirectional"]
BUILT += ["two_layers", "pooled", "maps"]  # the host cannot build a gate, and its own kernels have other parameters
BUILT += ["s4d_real", "dss", "stable", "lru", "rtf", "plain", "essm", "s5", "linoss", "memory", "filter"]
PAGE = Path(__file__).parents[2] / "docs/host.md"
SMALL = ["model.d_model=8", "model.n_layers=2"]

IN_HOST = """
    import json, sys
    import train
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    lines, built, small = json.loads(sys.argv[1])
    with initialize_config_dir(train.os.path.abspath("configs"), version_base="1.1"):
        for name, overrides in lines.items():
            OmegaConf.clear_resolver("eval")
            config = train.utils.train.process_config(compose("config", overrides))
            found = OmegaConf.to_container(config, resolve=True)
            found = {key: found[key] for key in ("model", "optimizer", "scheduler", "train")}
            if name in built:
                OmegaConf.clear_resolver("eval")
                module = train.SequenceLightningModule(
                    train.utils.train.process_config(compose("config", [*overrides, *small, "model.layer.d_state=6"]))
                )
                (optimizer,), _ = module.configure_optimizers()
                of_model = {id(p) for p in module.model.parameters()}
                found["groups"] = [
                    (group["lr"], group["weight_decay"], p.numel())
                    for group in optimizer.param_groups for p in group["params"] if id(p) in of_model
                ]
            print("FOUND", json.dumps([name, found]))
    """


@pytest.fixture(scope="module")
def in_host(host):
    """What every line composes to in the host; for those in BUILT, (lr, weight decay, size) of all parameters too."""
    done = host.python("-c", textwrap.dedent(IN_HOST), json.dumps([LINES, BUILT, SMALL]))
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("FOUND "))


def differences(theirs, ours, where):
    """Paths at which the host has something that we do not, or something else."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key, value in theirs.items():
            if key not in ours:
                yield f"{where}.{key} is missing"
            else:
                yield from differences(value, ours[key], f"{where}.{key}")
    elif theirs != ours:
        yield f"{where} is {theirs!r} there and {ours!r} here"


@pytest.mark.parametrize("name", LINES)
def test_one_line_composes_to_the_same(in_host, name):
    theirs, ours = in_host[name], compose(LINES[name])
    found = list(differences(theirs["model"], ours["model"], "model"))
    if "/" in name:  # the Long-Range Arena: kernels end with the longest sequence there, and with every batch's here
        found = [difference for difference in found if not difference.startswith("model.layer.l_max is ")]
    assert found == []
    assert theirs["optimizer"] == ours["optimizer"]
    assert theirs["scheduler"] == ours["scheduler"]
    for key in ("interval", "monitor", "mode", "seed", "state"):
        assert theirs["train"][key] == ours["train"][key]


def test_the_windows_follow_the_length_of_cifar_in_both(in_host):
    names = ("cifar", "cifar_layer", "cifar_bands")
    assert [in_host[name]["model"]["layer"]["horizon"] for name in names] == [1024] * len(names)


@pytest.mark.parametrize(("kernel", "said"), [
    ("s4d", "Multiple values for kernel"),
    ("hope", "lengths@model.layer.lengths appears more than once"),
])  # fmt: skip
def test_our_experiments_have_a_kernel_so_the_plus_is_one_too_many(host, kernel, said):
    """docs/host.md quotes what Hydra says, and gives the line without the plus, which is among LINES."""
    done = host.python("-m", "train", "experiment=hope/noisy-digits", f"+kernel={kernel}", "wandb=null", "--cfg", "job")
    assert done.returncode != 0
    assert said in done.stderr
    assert f'"{said}"' in PAGE.read_text(encoding="utf-8").replace("\n", " ")


@pytest.mark.parametrize("name", BUILT)
def test_one_line_makes_parameters_of_the_same_sizes_under_the_same_options(in_host, name):
    task, _ = build(compose([*LINES[name], *SMALL, "model.layer.d_state=6"]))
    optimizer = task.configure_optimizers()["optimizer"]
    named = Counter(
        (group["lr"], group["weight_decay"], parameter.numel())
        for group in optimizer.param_groups
        for parameter in group["params"]
        if any(parameter is p for p in task.model.parameters())
    )
    assert sum(named.values()) == sum(len(group["params"]) for group in parameter_groups(task.model))
    assert named == Counter(map(tuple, in_host[name]["groups"]))
