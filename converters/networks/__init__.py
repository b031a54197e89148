"""The DELF network in PyTorch."""
