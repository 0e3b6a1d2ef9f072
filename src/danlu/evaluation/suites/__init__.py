"""Suites: named, versioned sets of evaluation items. One file each; found by the registry."""
