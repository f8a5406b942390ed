"""The same bits by three ways: plain PyTorch, numba on CPUs, Triton on GPUs."""
