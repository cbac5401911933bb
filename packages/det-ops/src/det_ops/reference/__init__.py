"""The operators in plain PyTorch: static shapes, any device; the oracles of the kernels."""
