"""Descriptors become visual words and product-quantised codes."""
