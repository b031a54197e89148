"""The reliability lab: faults, hostile input, long runs (`python -m tests.reliability`, `make bench-reliability`)."""
