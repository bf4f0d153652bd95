"""One file per parameterization; ``contract`` is what they share."""
