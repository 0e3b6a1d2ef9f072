"""Use cases of the platform: what people and programs may do with projects, datasets, runs, jobs, models and users.

Every one is an `operation` (operations.py): it says who may do it, and REST, Python and the command line are made from it.
"""
