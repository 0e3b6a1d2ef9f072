"""Executors: where a job's process runs. One file each."""
