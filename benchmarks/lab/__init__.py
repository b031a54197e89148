"""How it is run and written down: the runner, tuning, the SDK as a row, search at size, tables and plots."""
