"""What a client can raise.

OnlineLearnerError
├── ConfigError              the address of the service is not one
├── NotReachable             no service is known, or no answer came: it may be down
└── ApiError                 the service refused; carries its problem+json (RFC 9457)
    └── PredictionGone       that answer can take no feedback any more: drop the signal
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from online_learner.errors import OnlineLearnerError


class NotReachable(OnlineLearnerError):
    """No service is known, or no answer came within the retries; says which, and what to do."""


class ApiError(OnlineLearnerError):
    """The service answered with an error.

    Attributes
    ----------
    status
        The HTTP status.
    code
        The machine-readable reason, `unknown_model` say.
    detail
        What is wrong, and what to do next.
    errors
        The places in the body that are wrong: `{pointer, code, message}`.
    retryable
        Whether the same request may succeed later.
    retry_after_s
        When, in seconds, where that is known.
    request_id
        What to quote to whoever runs the service.
    """

    def __init__(self, problem: Mapping[str, Any]) -> None:
        self.status = int(problem.get("status") or 0)
        self.code = str(problem.get("code") or f"http_{self.status}")
        self.detail = str(problem.get("detail") or problem.get("title") or "no reason was given")
        self.errors: list[dict[str, str]] = list(problem.get("errors") or ())
        self.retryable = bool(problem.get("retryable"))
        self.retry_after_s: float | None = problem.get("retry_after_s")
        self.request_id = str(problem.get("request_id") or "")
        super().__init__(self.detail)

    def __str__(self) -> str:
        return f"{self.detail} ({self.status} {self.code})"


class PredictionGone(ApiError):
    """That answer takes no feedback: its id is unknown, or its window is closed."""


def api_error(problem: Mapping[str, Any]) -> ApiError:
    """Return the error for a problem.

    >>> api_error({"status": 410, "code": "feedback_window_closed", "detail": "Too late."})
    PredictionGone('Too late.')
    """
    gone = problem.get("code") in ("unknown_prediction", "feedback_window_closed")
    return PredictionGone(problem) if gone else ApiError(problem)
