"""How well it was answered: protocols, intervals, thresholds, and the fit of a probability."""
