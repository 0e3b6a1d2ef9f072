"""Objectives: what the loss is. One file each; found by the registry."""
