"""Building things by the ``_name_`` in their configuration, as the host does, but refusing unknown options."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from hope_ssm.checks import check_choice, check_known


def instantiate(group: str, registry: Mapping[str, Callable], config: str | Mapping[str, Any], **given: Any) -> Any:
    """Call ``registry[config._name_]`` with the rest of ``config`` and with those of ``given`` that it takes.

    Args:
        group: the configuration group, for messages.
        registry: name → what is called.
        config: a name, or a mapping with the key ``_name_``.
        **given: values that the program knows, such as sizes; the configuration wins.

    Raises:
        ValueError: the name is unknown.
        TypeError: an option is unknown; the nearest valid one is named.
    """
    options = {"_name_": config} if isinstance(config, str) else dict(config)
    name = check_choice(group, options.pop("_name_", None), registry)
    factory = registry[name]
    parameters = inspect.signature(factory).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        given = {key: value for key, value in given.items() if key in parameters}
        check_known(f"{group} {name!r}", options, [key for key in parameters if key not in given or key in options])
    try:
        return factory(**{**given, **options})
    except (TypeError, ValueError) as error:
        first = re.split(r"[. ]", str(error))[0]  # the key, without its group
        if type(error) in (TypeError, ValueError) and first in options:
            raise type(error)(f"{group}.{error}") from error
        raise
