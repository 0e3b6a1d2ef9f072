"""Kinds of jobs: what the process of a job does. One file each, named like the kind."""
