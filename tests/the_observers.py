"""What observers might report, written to the store as they write it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from online_learner.observe.observer import KEYS, MOST_ALARMS, MOST_POINTS
from online_learner.registry import Registry
from online_learner.schema import Advice, Observed, Raised, Signal
from policies.lens import Lens

AT = 1_800_000_000.0


class Half(Lens):
    """Has every lesson weigh half as much, once it has heard anything."""

    weight = 1.0

    def table(self) -> dict[str, Any]:
        """Return by how much."""
        return {"weight": 0.5}

    def adopt(self, table: Mapping[str, Any]) -> None:
        """Take it in."""
        self.weight = table.get("weight", 1.0)

    def factor(self, signal: Signal) -> float:
        """Return it."""
        return self.weight


def rate(k: int, n: int) -> dict[str, Any]:
    """Return a share with bounds around it."""
    share = k / n
    return {"n": n, "k": k, "share": share, "low": 0.8 * share, "high": min(1.0, 1.2 * share)}


def score(value: float, n: int = 500) -> dict[str, Any]:
    """Return a score with bounds around it."""
    return {"n": n, "score": value, "low": value - 0.03, "high": value + 0.03}


def weighing(*, on: bool, sentence: str) -> dict[str, Any]:
    """Return how it stands with a correction."""
    evidence = {"n": 120, "raw": 0.81, "corrected": 0.83, "log10_e": 0.7, "needed_log10_e": 1.3}
    return {"mode": "auto", "on": on, **evidence, "sentence": sentence}


REPORTS: dict[str, Any] = {
    "response": {
        "rate": rate(60, 2000),
        "by": {
            "score": [
                {"score_low": 0.5, "score_high": 0.75, **rate(40, 500)},
                {"score_low": 0.75, "score_high": 1.0, **rate(20, 1500)},
            ],
            "output": [{"value": "news", **rate(30, 900)}, {"value": "sport", **rate(30, 1100)}],
            "asked": [{"value": "no", **rate(20, 1800)}, {"value": "uncertain", **rate(40, 200)}],
            "segment": {"plan": [{"value": "free", **rate(50, 1000)}]},
            "interface": [{"value": "mail/b", **rate(11, 100)}],
            "position": [{"value": "1", **rate(7, 70)}],
        },
        "estimates": {
            "volunteered": score(0.61, 60),
            "corrected": score(0.79, 60),
            "audited": None,
        },
        "silence": {
            "odds": {"value": 5.0, "low": 3.0, "high": 8.0},
            "sentence": "People speak 5 times as readily of the worst answers.",
        },
        "weighing": weighing(on=False, sentence="It takes more audits to tell."),
        "of_our_own": {"kept": True},
    },
    "raters": {
        "raters": [
            {
                "rater": "human:ada",
                "signals": 400,
                "agreement": rate(360, 400),
                "gold": rate(19, 20),
                "weight": 1.25,
                "leniency": -0.1,
                "slope": 0.9,
                "inverted": False,
            },
            {
                "rater": "human:mallory",
                "signals": 90,
                "agreement": rate(9, 90),
                "gold": None,
                "weight": 0.05,
                "leniency": None,
                "slope": -0.8,
                "inverted": True,
            },
        ],
        "others": 17,
        "weighing": weighing(on=True, sentence="Weighted answers were right more often."),
    },
    "implicit": {
        "weight": 0.0,
        "events": [
            {
                "event": "click",
                "n": 3000,
                "with_explicit": 80,
                "agreement": rate(30, 80),
                "expected": 0.5,
                "verdict": "disagrees",
            }
        ],
        "sentence": "Clicks do not mean that an answer is liked.",
    },
    "drift": {
        "watched": [
            {
                "what": "loss",
                "n": 900,
                "mean": 0.31,
                "width": 256,
                "alarms": 1,
                "last_at_ms": 1000 * AT,
            },
            {
                "what": "score",
                "n": 900,
                "mean": 0.8,
                "width": 900,
                "alarms": 0,
                "last_at_ms": None,
            },
        ],
        "effects": {"ask": 2.0, "until_ms": 1000 * AT},
        "false_alarms_per_100000": 0.3,
    },
    "scores": {
        "places": [
            {
                "place": "champion:3",
                "n": 1000,
                "slope": 0.6,
                "shifts": {},
                "raw_error": 0.11,
                "error": 0.02,
                "raw_log_loss": 0.6,
                "log_loss": 0.5,
                "on": True,
            }
        ],
        "served": {
            "n": 1000,
            "error": 0.02,
            "bins": [
                {"low": 0.5, "high": 0.6, "count": 700, "mean_score": 0.55, "share_right": 0.56},
                {"low": 0.6, "high": 0.7, "count": 300, "mean_score": 0.65, "share_right": 0.61},
            ],
        },
        "raw": {"n": 1000, "error": 0.11, "bins": []},
        "weighing": weighing(on=True, sentence="Scaled scores have won."),
    },
    "quality": {
        "metric": "accuracy",
        "roles": {
            "anchor": {"accuracy": score(0.7), "recent": score(0.69, 100), "macro_f1": 0.66},
            "champion": {
                "accuracy": score(0.82),
                "recent": score(0.86, 100),
                "decayed": score(0.85, 300),
                "log_loss": 0.44,
                "calibration_error": 0.03,
                "macro_f1": 0.8,
            },
        },
        "baselines": {"no_change": score(0.4), "majority": {"accuracy": score(0.5)}},
        "segments": {"plan": {"free": {"accuracy": score(0.78)}, "paid": score(0.91)}},
        "said": {"thumbs_up": {"raw": score(0.6, 40), "corrected": score(0.7, 40)}},
        "point": {"champion.accuracy": 0.82},
    },
}
RAISED = Raised(
    by="drift",
    about="loss",
    sentence="The loss rose from 0.12 to 0.31.",
    numbers={"before": 0.12, "after": 0.31},
    effects=["ask x 2"],
    at=AT,
)


async def report(
    registry: Registry,
    reports: Mapping[str, Any],
    *,
    alarms: Sequence[Raised] = (),
    point: Mapping[str, float] | None = None,
    tables: Mapping[str, dict[str, Any]] | None = None,
    seen: int = 2000,
    ask: float = 1.0,
) -> None:
    """Keep what observers report, as they do, with what they raise."""
    before = await registry.store.call("HGET", registry.keys.observer, "n")
    n = int(before or 0) + 1
    at = Observed(n=n, seen=seen, tables=dict(tables or {}), advice=Advice(ask=ask), at=AT)
    states, told = b"{}", json.dumps(reports).encode()
    head = {
        "after": (before or b"0").decode(),
        "n": str(n),
        "state": registry.seal("observer", at, blob=states, memory=told).fields(),
        "alarms": [raised.pack().decode() for raised in alarms],
        "most_alarms": MOST_ALARMS,
        "most_points": MOST_POINTS,
        "publish": registry.keys.swap,
    }
    if point is not None:
        head["quality"] = json.dumps({"at": AT, **point})
    keys = [getattr(registry.keys, name) for name in KEYS]
    assert await registry.store.run("observe", keys, [json.dumps(head), states, told])
