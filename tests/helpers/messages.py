"""What messages of errors say."""

from __future__ import annotations

import re

NUMBER = "must be a finite number above 0; got "
WHOLE = "must be a whole number of at least 1; got "


def exactly(message):
    """A pattern that only the whole message matches."""
    return f"^{re.escape(message)}$"
