"""What a workstation runs: train, export, quantise, compress and pack bundles. PyTorch lives here and nowhere else."""
