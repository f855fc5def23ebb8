"""What a signal means: `target` trains, `truth` may judge.

A team that sees it otherwise writes a class with the same two methods and names it in the
configuration (`signals: my_team.signals:Signals`).

| kind                  | classification            | regression         | truth for the gate      |
|-----------------------|---------------------------|--------------------|-------------------------|
| correction            | the label                 | the number         | the label, the number   |
| thumbs up             | the label served          | the number served  | the label served; none  |
| thumbs down, 2 labels | the other label           | nothing            | the other label; none   |
| thumbs down, K labels | nothing                   | nothing            | none                    |

Thumbs speak only about what was shown. On a number they say "good enough", which is no distance to
score another answer by; with more than two labels, a thumbs-down does not say which label is right.
"""

from __future__ import annotations

from typing import Literal

from online_learner.schema import Example, Feedback, Label, Output, Prediction


class Signals:
    """The default table.

    Parameters
    ----------
    task
        `classification` or `regression`.
    labels
        The closed set of labels, or None where labels are learned.
    """

    def __init__(
        self, task: Literal["classification", "regression"], labels: list[Label] | None = None
    ) -> None:
        self.task = task
        self.labels = labels

    def example(self, feedback: Feedback, prediction: Prediction) -> Example | None:
        """Return what to learn, or None where the signal teaches nothing."""
        if feedback.kind == "thumbs" and feedback.value and self.task == "regression":
            target = prediction.output
        else:
            target = self.truth(feedback, prediction)
        if target is None:
            return None
        return Example(features=prediction.features, target=target)

    def truth(self, feedback: Feedback, prediction: Prediction) -> Output:
        """Return the right answer, where the signal says it for sure; else None."""
        if feedback.kind == "correction":
            value: Output = feedback.value
            return value
        if feedback.kind != "thumbs" or self.task == "regression":
            return None
        if feedback.value:
            return prediction.output
        return self._other(prediction.output)

    def _other(self, label: Output) -> Output:
        """Return the other label, where there are just two."""
        if self.labels is None or len(self.labels) != 2 or label is None:
            return None
        first, second = self.labels
        return second if label == first else first
