"""Danlu: turn a general language model into your own specialist, and prove that it got better."""

__version__ = "0.1.0"
