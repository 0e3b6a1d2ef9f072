"""The fast path: fused autograd functions, each proved equal to the reference path."""
