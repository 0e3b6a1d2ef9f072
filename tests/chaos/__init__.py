"""The fault gate: real servers, workers and trainings that are killed, and what must hold afterwards (docs/reliability.md)."""
