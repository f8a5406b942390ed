"""Measures of several answers to an item: pass@k, the majority's answer, and how repetitive the texts are."""

import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from armlet.redistribution.errors import ArgumentError
from armlet.statistics import FloatArray

KS = (1, 3, 8, 16)

WORD_OR_SIGN = re.compile(r"\w+|[^\w\s]")


def pass_at_k(correct: ArrayLike, k: int) -> FloatArray:
    """The probability that k of an item's n samples, drawn without replacement, include a correct one.

    It is an unbiased estimate for k new samples: 1 − C(n−c, k) / C(n, k) with c correct samples, as a product of k
    factors of at most 1, so that nothing overflows (Chen et al. 2021, arXiv 2107.03374, section 2.1).

    Args:
        correct: `[items, samples]` of 0/1.
        k: number of samples drawn, from 1 to the number of samples; `KS` are the usual choices.

    Returns:
        The probabilities `[items]`.

    Raises ArgumentError if `correct` has another shape or values other than 0 and 1, or k is out of range.
    """
    samples_correct = np.asarray(correct)
    if samples_correct.ndim != 2 or not np.isin(samples_correct, (0, 1)).all():
        raise ArgumentError(f"correct has shape {samples_correct.shape}: give [items, samples] of 0 and 1")
    samples = samples_correct.shape[1]
    if not isinstance(k, int | np.integer) or not 1 <= k <= samples:
        raise ArgumentError(f"pass@{k} of {samples} samples: k must be a whole number from 1 to {samples}")
    wrong = samples - samples_correct.sum(axis=1, dtype=np.int64)
    draws = np.arange(k)
    # With fewer than k wrong samples, k draws always include a correct one: a factor is 0, and none is negative.
    return 1 - (np.maximum(wrong[:, None] - draws, 0) / (samples - draws)).prod(axis=1)


def majority(answers: Sequence[str | None], equal: Callable[[str, str], bool] = operator.eq) -> int | None:
    """The index of the first sample with the most frequent answer; ties go to the answer that appears first.

    Args:
        answers: extracted answers to an item; None for an answer that could not be read, which never wins.
        equal: whether two answers are the same; an answer joins the first group whose first answer it equals.

    Returns:
        The index, or None if no answer could be read.
    """
    readable = {index: answer for index, answer in enumerate(answers) if answer is not None}
    votes = Counter[int]()  # number of answers in each group, by the index of its first answer
    for index, answer in readable.items():
        group = next((first for first in votes if equal(readable[first], answer)), index)
        votes[group] += 1
    return max(votes, key=votes.__getitem__, default=None)


def distinct_2(texts: Iterable[str]) -> float:
    """Share of distinct pairs among all pairs of adjacent words in the texts (Li et al. 2016, arXiv 1510.03055).

    A word is a run of letters and digits; any other character counts as a word. No pair spans two texts.

    Returns:
        A share in (0, 1]; 0.0 if there is no pair.
    """
    pairs = [pair for text in texts for pair in pairwise(WORD_OR_SIGN.findall(text))]
    return len(set(pairs)) / len(pairs) if pairs else 0.0
