"""What the client asks to label, and what it plants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

from online_learner.client import calls
from online_learner.client.inspecting import Inspecting
from online_learner.client.sending import Json

Lane: TypeAlias = Literal["audit", "ask", "any"]


class Labelling(Inspecting):
    """The calls of `Client` that hand out what waits for a label."""

    def audits(self, model: str, *, count: int = 20) -> list[Json]:
        """List answers that the gate waits for a label of, in random order.

        Label them as they come, and leave none out for what it is: what is chosen by its looks is
        no sample. Each is as `lease` has it. Needs a key with the scope `audit`.
        """
        return self._send(calls.queue(model, "audit", count))

    def queue(self, model: str, lane: Lane = "any", *, count: int = 20) -> list[Json]:
        """List answers that wait for a label, and lease none; needs the scope `audit`.

        The lane `audit` has what the gate waits for, in random order; `ask` what active learning
        asks about, most valuable first; `any` is both.
        """
        return self._send(calls.queue(model, lane, count))

    def lease(
        self,
        model: str,
        *,
        count: int = 20,
        lane: Lane = "any",
        seconds: float = 300.0,
        rater: str | None = None,
        prediction_ids: Iterable[str] | None = None,
    ) -> Json:
        """Take answers to label: nobody else is given them until the lease runs out.

        The lane of audits needs the scope `audit`; `any` is what the key may label. Answer with
        `feedback`, in the name of the same `rater` (its `user_id`). With `prediction_ids` these
        alone, and for longer those that the rater has.

        Returns
        -------
        `queue`, at most `count`, each with `prediction_id`, `features`, `options`, the `output`
        that was shown, `lane`, and `asked_at`, `expires_at` and `leased_until` in seconds since
        1970; with the model's `task` and `labels`, None where these are learned as they come.
        """
        ids = None if prediction_ids is None else list(prediction_ids)
        wanted = {"count": count, "lane": lane, "seconds": seconds, "rater": rater}
        return self._send(calls.lease(model, wanted | {"prediction_ids": ids}))

    def skip(
        self,
        model: str,
        prediction_ids: Iterable[str],
        *,
        rater: str | None = None,
        again: bool = False,
    ) -> int:
        """Give leased answers back unlabelled; returns how many of them were leased.

        They go to others, and never to this rater again; with `again`, to whoever asks first.
        """
        return self._send(calls.skip(model, prediction_ids, rater, again=again))

    def gold(self, model: str, features: Mapping[str, Any], value: Any, **fields: Any) -> Json:
        """Plant a question with its right answer, to learn about raters; needs `operate`.

        Parameters
        ----------
        value
            What is right, as in a correction.
        fields
            `options`, `top_k` and the like, as for `predict`.

        Returns
        -------
        `prediction_id`, `feedback_id` of the right answer, the `output` of the model, and
        `open_until`, in seconds since 1970.
        """
        return self._send(calls.gold(model, {"features": features, "value": value, **fields}))
