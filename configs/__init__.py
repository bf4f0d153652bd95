"""Hydra configuration groups, with the names of the host's own."""
