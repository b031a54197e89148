"""The systems of the table."""
