"""The mathematics as functions: frequencies, power series, transfer functions, state spaces, kernels."""
