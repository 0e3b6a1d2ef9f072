"""Trackers. One file each; found by the registry."""
