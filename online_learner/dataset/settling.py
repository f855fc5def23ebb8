"""What the columns of a dataset are: as the rows settle it that will be in it."""

from __future__ import annotations

from typing import Any

from online_learner.dataset.heard import Heard
from online_learner.dataset.query import Format
from online_learner.dataset.rows import FORMATS, Shape
from online_learner.dataset.rows.common import is_chat
from online_learner.dataset.rows.targets import kind_of, settle
from online_learner.errors import DataError
from online_learner.settings import ModelSpec

MOST_FEATURES = 2000  # columns of `tabular`


class Columns:
    """Types of what the rows hold so far.

    Parameters
    ----------
    factors
        What weights are made of, by name.
    """

    def __init__(self, spec: ModelSpec, format_: Format, factors: tuple[str, ...]) -> None:
        self._task = spec.task
        self._factors = factors
        self._flat = format_ == "tabular"
        self._has_targets = FORMATS[format_].balance == "target"
        self._targets = {kind_of(label) for label in spec.labels or ()}
        self._features: dict[str, set[str]] = {}
        self._chat = False

    def note(self, heard: Heard, payload: Any) -> None:
        """Note the types of what a row will hold."""
        features = heard.prediction.features
        if not self._chat and is_chat(features):
            self._chat = True
        if self._has_targets:
            self._targets.add(kind_of(payload))
            if heard.prediction.output is not None:
                self._targets.add(kind_of(heard.prediction.output))
        if self._flat and len(self._features) <= MOST_FEATURES:
            for name, value in features.items():
                self._features.setdefault(name, set()).add(kind_of(value))

    def shape(self) -> Shape:
        """Return what the columns are.

        Raises
        ------
        DataError
            There are too many features for a column each (`not_fillable`).
        """
        if len(self._features) > MOST_FEATURES:
            raise DataError(
                f"there are more than {MOST_FEATURES:,} features, too many for a column each: take "
                "`supervised`, which has them as JSON, or fewer rows (`where`)",
                code="not_fillable",
            )
        return Shape(
            task=self._task,
            target="float" if self._task == "regression" else settle(self._targets or {"text"}),
            chat=self._chat,
            features=tuple((n, settle(self._features[n])) for n in sorted(self._features)),
            factors=self._factors,
        )
