"""The embedded host: the same experiments, from the same override lines, where state-spaces/s4 is not at hand."""
