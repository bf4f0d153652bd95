"""One file per parameterization; ``base`` is what they share."""
