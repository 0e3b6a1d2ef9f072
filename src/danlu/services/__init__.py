"""Use cases as plain functions; every door calls these."""
