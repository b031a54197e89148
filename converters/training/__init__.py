"""Train the network: photos, augmentation, pairs, losses, and the recipe of the default bundle."""
