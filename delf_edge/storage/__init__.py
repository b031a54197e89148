"""Images, landmarks and codes in one SQLite file."""
