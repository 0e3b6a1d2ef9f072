"""A batch with everything that is odd about examples, for tests of the fast path."""

import numpy as np

from danlu.data.pack import EncodedExample

VOCABULARY = 96


def odd_examples() -> list[EncodedExample]:
    """Several lengths; one example has a single label, one has none, one has two tokens."""
    generator = np.random.default_rng(4)
    examples = []
    for length, labels in ((23, slice(9, 23)), (2, slice(1, 2)), (31, slice(30, 31)), (12, slice(0, 0)), (17, slice(3, 8)), (1, slice(0, 1))):
        mask = np.zeros(length, np.bool_)
        mask[labels] = True
        examples.append(EncodedExample(generator.integers(1, VOCABULARY, length).astype(np.uint32), mask))
    return examples
