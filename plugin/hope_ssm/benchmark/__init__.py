"""Kernels, convolutions, layers and training steps side by side: checked first, then timed in turn."""
