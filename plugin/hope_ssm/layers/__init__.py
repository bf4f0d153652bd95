"""Torch modules for models of one's own; they import neither Hydra nor Lightning."""
