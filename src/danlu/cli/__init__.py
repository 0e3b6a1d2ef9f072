"""The command line: parses, calls a service, shows the result."""
