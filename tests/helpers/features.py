"""Tests of what only newer versions of a package can do skip by version, and say so."""

from __future__ import annotations

import pytest

from hope_ssm.ops import native_build
from hope_ssm.requirements import FEATURES, at_least, version


def needs(feature: str) -> pytest.MarkDecorator:
    """Return the mark of a test that needs a feature of ``hope_ssm.requirements.FEATURES``."""
    name, least = FEATURES[feature]
    return pytest.mark.skipif(not at_least(name, least), reason=f"{feature} needs {name}>={least}; got {version(name)}")


NATIVE = pytest.mark.skipif(not native_build.available(), reason=f"auto takes {native_build.choice()}")
