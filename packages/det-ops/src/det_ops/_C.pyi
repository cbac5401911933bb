# ruff: noqa: N999
# Kernels over raw buffers: `*_ptr` are addresses of contiguous memory (Tensor.data_ptr()), sizes in elements.
