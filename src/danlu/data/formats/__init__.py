"""Dataset formats: how a row becomes an example. One file each; found by the registry."""
