"""Training speed and memory of Danlu next to other tools: `make bench`, or `python -m bench --help`."""
