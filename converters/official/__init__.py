"""Files of the official DELF and DELG releases."""
