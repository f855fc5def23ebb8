"""The learner of the section on erasing: words stand in its weights by themselves."""

from __future__ import annotations

from typing import Any

from river import compose, feature_extraction, naive_bayes


def learner() -> Any:
    """Return naive Bayes on words, of a feature `text`."""
    words = feature_extraction.BagOfWords(on="text")
    return compose.Pipeline(words, naive_bayes.MultinomialNB())
