"""The Hankel lens: what the kernels of a model remember, looked at in training and after."""
