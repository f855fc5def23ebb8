"""A check of our own for Schemathesis, which loads this file: every error is a problem.

It also notes what was asked and replied, a line a case, in the file that `NOTES` names.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import schemathesis

NOTES = "BENCH_NOTES"
MEMBERS = {"type", "title", "status", "detail", "instance", "code", "errors", "retryable"}


@schemathesis.check
def every_error_is_a_problem(ctx: Any, response: Any, case: Any) -> None:
    """Raise where an error is not as RFC 9457 and our own contract say."""
    phase = case.meta.phase.name.value if case.meta else "other"
    if NOTES in os.environ:
        with Path(os.environ[NOTES]).open("a") as notes:
            notes.write(f"{phase} {response.status_code} {case.method} {case.path}\n")
    if response.status_code < 400 or (case.method == "GET" and case.path == "/readyz"):
        return
    kind = response.headers.get("content-type", [""])[0]
    if kind != "application/problem+json":
        raise AssertionError(f"{response.status_code} comes as {kind or 'nothing'}")
    body = json.loads(response.content or b"{}") if case.method != "HEAD" else {}
    if case.method != "HEAD" and (
        not body.keys() >= MEMBERS or body["status"] != response.status_code
    ):
        raise AssertionError("the problem is not complete")
