"""One parameter group for each distinct set of optimizer options: the host's ``_optim`` hook."""

from __future__ import annotations

from typing import Any

from torch import nn

from hope_ssm.kernels.optimizer_options import options_of_parameters

_UNDECAYED = (nn.LayerNorm, nn.BatchNorm1d, nn.GroupNorm, nn.Embedding)


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Return one group for the parameters under the global options and one for each distinct set of own options.

    For any torch optimizer: ``AdamW(parameter_groups(model), lr=…, weight_decay=…)``; a group's own options win.
    Biases, norms and embeddings have no weight decay. Each group has the names of its parameters under ``names``.

    Args:
        module: any module, with kernels in it or not.

    Returns:
        groups with the keys params, names and, where they differ from the global ones, lr and weight_decay.
    """
    undecayed = {
        id(parameter)
        for owner in module.modules()
        for name, parameter in owner.named_parameters(recurse=False)
        if name.endswith("bias") or isinstance(owner, _UNDECAYED)
    }
    own = options_of_parameters(module)
    groups: dict[tuple, dict[str, Any]] = {(): {"params": [], "names": []}}
    for name, parameter in module.named_parameters():
        options = {"weight_decay": 0.0} if id(parameter) in undecayed else own.get(id(parameter), {})
        group = groups.setdefault(tuple(sorted(options.items())), {"params": [], "names": [], **options})
        group["params"].append(parameter)
        group["names"].append(name)
    return [group for group in groups.values() if group["params"]]
