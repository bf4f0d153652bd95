"""Where Hydra 1.3 looks for plug-ins; the plug-in itself is hope_ssm.hydra_searchpath."""

import logging

try:
    from hope_ssm.hydra_searchpath import HopeSearchPath  # noqa: F401
except Exception as error:
    # Hydra forgives ImportError alone; anything else raised here would stop every Hydra application.
    logging.getLogger("hope_ssm").warning(
        "hope-ssm's Hydra plug-in could not be loaded: %s: %s", type(error).__name__, error
    )
