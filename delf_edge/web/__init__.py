"""The kiosk page and its small local service (`python -m pip install 'delf-edge[web]'`, then `delf-edge serve DB`)."""
