"""The commands of `delf-edge-convert`, a module for each step from photos to a bundle."""
