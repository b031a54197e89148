"""What is asked: datasets, readers of the public benchmarks, the training set, and features kept on disk."""
