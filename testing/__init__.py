"""Makers and fakes that tests, benchmarks and the reliability lab share. Not in the wheel."""
