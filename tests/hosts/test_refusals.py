"""Nothing in the host silently trains something else than the kernel asked for: 93 experiment files, by their fate.

Runs when STATE_SPACES_HOME names a checkout; see conftest.py.
"""

from __future__ import annotations

import json
import textwrap

import pytest

HOMELESS = "the model must hold the kernel 'hope' that the configuration asks for"
# Compose and build every experiment file as it is, and with the kernel asked for; one process, tiny models, no data.
COUNT = """
    import json, os, pathlib, sys
    import hope_ssm.hydra_searchpath
    import train
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf
    import src.utils.registry as registry

    def fate(*overrides):
        OmegaConf.clear_resolver("eval")
        try:
            config = train.utils.train.process_config(compose("config", list(overrides)))
        except Exception as error:
            return "composition", f"{type(error).__name__}: {error}"
        model = config.model
        if isinstance(model.get("n_layers"), int):
            model.n_layers = 1
        model.pop("encoder", None), model.pop("decoder", None)
        try:
            built = train.utils.instantiate(registry.model, model)
        except Exception as error:
            return "building", f"{type(error).__name__}: {error}"
        return "built", sum("hope_ssm" in type(module).__module__ for module in built.modules())

    root = pathlib.Path("configs/experiment")
    names = sorted(str(file.relative_to(root).with_suffix("")) for file in root.rglob("*.yaml"))
    asked = json.loads(sys.argv[1])
    with initialize_config_dir(os.path.abspath("configs"), version_base="1.1"):
        for name in names:
            line, groups = f"experiment={name}", "hydra.searchpath=[pkg://hope_ssm.configs]"
            fates = [fate(line, groups, option) for option in asked]
            if not all(stage == "built" and found for stage, found in fates):
                fates.append(fate(line))  # as it is
            print("FATE", json.dumps([name, fates]), flush=True)
    """
GROUP, MODE = "+kernel=hope", "++model.layer.mode=hope"
# What the host itself cannot compose: files that it lacks, and a key twice.
UNCOMPOSED = {
    "audio/samplernn-beethoven", "audio/samplernn-scg", "audio/samplernn-youtubemix", "lm/transformer-wt103",
    "s4nd/celeba/convnext-celeba-all", "s4nd/celeba/convnext-s4nd-celeba-all",
    "s4nd/convnext/convnext_timm_tiny_imagenet", "s4nd/convnext/convnext_timm_tiny_inflate3d_hmdb",
    "s4nd/convnext/convnext_timm_tiny_inflate3d_s4nd_hmdb", "s4nd/convnext/convnext_timm_tiny_s4nd_imagenet",
    "sc/convnet-sc",
}  # fmt: skip
# What it composes and cannot build: options that its classes do not have, a module that it lacks, and packages that may
# be absent or too new (timm, fast_transformers).
MEGA = {f"mega/lra-image/{size}-mega-{kind}" for size in ("large", "small")
        for kind in ("ema", "ema-with-s4", "s4d", "s4d-real")}  # fmt: skip
UNBUILT = MEGA | {"bidmc/ckconv-bidmc", "lra/resnet-pathx", "synthetic/s4-copying"}
PACKAGES = {"s4nd/vit/vit_b_16_imagenet", "s4nd/vit/vit_b_16_s4_imagenet_v2", "sc/transformer-sc"}
LISTS = {"lm/s4-wt103", "sc/transformer-sc"}  # Hydra merges no mapping into a list of layers; docs/host.md says how
LINEAR = {"synthetic/s4-delay", "synthetic/s4-reconstruct"}  # an option that no kernel has, and none of the host's


@pytest.fixture(scope="module")
def fates(host) -> dict[str, dict[str, tuple[str, object]]]:
    """{experiment: {"": as it is, option: with the kernel asked for}}, each (how far it came, what came of it)."""
    done = host.python("-c", textwrap.dedent(COUNT), json.dumps([GROUP, MODE]), timeout_s=1200)
    assert done.returncode == 0, done.stderr[-4000:]
    rows = [json.loads(line[5:]) for line in done.stdout.splitlines() if line.startswith("FATE ")]
    return {name: dict(zip((GROUP, MODE, ""), found, strict=False)) for name, found in rows}


@pytest.mark.slow
@pytest.mark.parametrize("option", [GROUP, MODE])
def test_every_experiment_file_of_the_host_has_hope_or_is_refused_with_a_sentence(fates, option):
    assert len(fates) == 93
    as_it_is = {name: found.get("", ["built", 0]) for name, found in fates.items()}
    assert {name for name, (stage, _) in as_it_is.items() if stage == "composition"} == UNCOMPOSED
    unbuilt = {name for name, (stage, _) in as_it_is.items() if stage == "building"}
    assert UNBUILT - {"synthetic/s4-copying"} | LINEAR <= unbuilt <= UNBUILT | LINEAR | PACKAGES
    assert not [name for name, (stage, kernels) in as_it_is.items() if stage == "built" and kernels], "not asked for"
    having = set()
    for name, found in fates.items():
        stage, result = found[option]
        if stage == "built":
            assert result > 0, f"{name} {option} trains without HOPE and says nothing"
            having.add(name)
        elif name not in UNCOMPOSED | UNBUILT | PACKAGES | LISTS:
            sentence = "TypeError: the hope kernel has no option" if name in LINEAR else f"ValueError: {HOMELESS}"
            assert result.startswith(sentence), f"{name} {option}: {result}"
    assert len(having) == 51, sorted(having)


def test_lists_of_layers_take_the_kernel_by_number(host):
    code = (
        COUNT.partition("root = pathlib")[0]
        + """
    with initialize_config_dir(os.path.abspath("configs"), version_base="1.1"):
        print(fate("experiment=lm/s4-wt103", "++model.layer.0.mode=hope"))
    """
    )
    done = host.python("-c", textwrap.dedent(code), path=(host.home,))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("('built', 1)"), done.stdout
