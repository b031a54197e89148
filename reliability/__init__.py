"""The reliability lab: faults, hostile input, long runs (`python -m reliability`, `make bench-reliability`)."""
