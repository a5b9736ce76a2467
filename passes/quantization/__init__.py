"""Quantization: which tensors are put on grids, the grids, and the programs that compute with them."""
