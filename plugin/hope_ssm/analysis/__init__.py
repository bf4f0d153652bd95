"""What the kernels of a model remember: their Hankel singular values, memory and pictures, in both hosts."""
