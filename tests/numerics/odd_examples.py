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


def alike_examples() -> list[EncodedExample]:
    """A tree of common beginnings: pairs under one system message, the same text twice, and one that ends where another goes on."""
    draw = np.random.default_rng(7)

    def some(count: int) -> list[int]:
        return [int(n) for n in draw.integers(0, VOCABULARY, count)]

    system = some(7)
    prompt, other = system + some(12), system + some(5)
    word = some(1)
    texts = [prompt + word + some(9), other + some(11), some(14), prompt + word + some(3), prompt, other + some(6), system + some(2)]
    texts += [texts[1], some(3)]
    begins = [19, 12, 4, 19, 9, 3, 7, 15, 1]
    return [EncodedExample(np.asarray(ids, np.uint32), np.arange(len(ids)) >= begin) for ids, begin in zip(texts, begins, strict=True)]
