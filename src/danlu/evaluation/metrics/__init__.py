"""Metrics of generated text. One file each; found by the registry."""
