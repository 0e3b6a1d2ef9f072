"""The worker door: a supervisor that gives queued jobs to processes, and what such a process does."""
