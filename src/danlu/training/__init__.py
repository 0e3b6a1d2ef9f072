"""The training stage: one loop, a reference path and a fast path that is proved equal to it."""
