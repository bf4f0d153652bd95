"""What HOPE got from a file of settings for S4, where the kernel alone was asked for by ``mode``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from hope_ssm import registry
from hope_ssm.checks import log_once

_logger = logging.getLogger("hope_ssm")
# What the file of an S4 layer sets, for S4 and not for HOPE; the rate of Δt that it sets is HOPE's own too.
_OF_S4 = {"n_ssm": 1, "dt_min": 0.001, "dt_max": 0.1}
_HOPE = ("hope", "hope-bands")


def say_what_is_of_s4(kernel: str, layer: Mapping[str, Any], plus: str = "") -> None:
    """Log once if HOPE got its range of Δt from the file of an S4 layer, where ``mode`` alone was asked for.

    Args:
        kernel: the name that was asked for.
        layer: the options of the layer.
        plus: ``"+"`` where the group ``kernel`` has to be added on the command line, as in the host.
    """
    entry = registry.names().get(kernel)
    forced = {key: value for key, value in _OF_S4.items() if layer.get(key) == value}
    shared = layer.get("n_ssm") is not None  # kernel=hope has null, also where a range is given
    if entry is None or entry.name not in _HOPE or not shared or not {"dt_min", "dt_max"} <= set(forced):
        return
    group, listed = entry.name, ", ".join(f"{key}={value}" for key, value in forced.items())
    mend = f"{plus}kernel={group}" + (" (or model/layer=hope)" if group == "hope" else "")
    log_once(
        _logger,
        logging.WARNING,
        f"mode={kernel} keeps what the file of the layer sets for S4: {listed}. Put {mend} in its place for "
        "HOPE's own settings: windows that suit the length of the sequences, and one Δt per feature.",
    )
