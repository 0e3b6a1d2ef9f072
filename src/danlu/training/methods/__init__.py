"""Tuning methods: which weights change. One file each; found by the registry."""
