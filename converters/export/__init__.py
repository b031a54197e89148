"""From a PyTorch network to a bundle: TFLite files, codebook, golden vectors, and checks of each."""
