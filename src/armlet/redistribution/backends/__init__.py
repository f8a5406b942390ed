"""The backends, with the same bits: plain PyTorch, numba on CPUs, Triton on GPUs."""
