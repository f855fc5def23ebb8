"""An independent reader: adds up the raw streams with a plain Redis client.

It imports nothing of the system and believes none of its counters. Every accepted signal must be in
the feedback stream once, and be covered by exactly one step, which learned it or set it aside; what
a reset undid counts as rolled back.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import redis

from examples.demo.replay import Ledger

Entry = tuple[int, int]


@dataclass(frozen=True)
class Account:
    """The sums of one model."""

    sent: int
    accepted: int
    duplicates: int
    refused: int
    learned: int
    set_aside: int
    rolled_back: int
    faults: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether everything adds up."""
        return not self.faults


def account(url: str, model: str, ledger: Ledger) -> Account:
    """Add up one model's streams and hold them against what the client was told."""
    with redis.Redis.from_url(url) as server:
        streams = {name: _read(server, model, name) for name in ("feedback", "steps", "quarantine")}
        versions = _version_offsets(server, model)
    signals = {entry for entry, fields in streams["feedback"] if b"f" in fields}
    steps = [json.loads(fields[b"s"]) for _, fields in streams["steps"]]
    covered: Counter[Entry] = Counter()
    set_aside: set[Entry] = set()
    kept: set[Entry] = set()  # of those: valid, with nothing to learn from it
    undone: set[Entry] = set()
    for step in steps:
        if "reset_to" in step:
            reached = versions[step["reset_to"]]
            undone |= {e for e in covered if e > reached} - set_aside
            continue
        inside = [e for e in signals if _entry(step["after"]) < e <= _entry(step["to"])]
        covered.update(inside)
        aside = step.get("set_aside", {})
        set_aside |= {_entry(entry) for entry in aside}
        kept |= {_entry(e) for e, reason in aside.items() if reason.startswith("nothing_to_learn")}
    learned = set(covered) - set_aside - undone
    quarantine = {_entry(fields[b"e"].decode()) for _, fields in streams["quarantine"]}
    told = {_address(feedback_id) for feedback_id in ledger.accepted}
    faults = _faults(
        {
            "sent is not accepted + duplicates + refused": ledger.sent
            != len(ledger.accepted) + ledger.duplicates + ledger.refused,
            "a signal that was acknowledged is not in the stream": bool(told - signals),
            "the stream holds a signal that nobody was told of": bool(signals - told),
            "a signal is covered by no step": bool(signals - set(covered)),
            "a signal is covered by two steps": any(n > 1 for n in covered.values()),
            "quarantine and steps disagree about what was set aside": quarantine
            != set_aside - kept,
            "accepted is not learned + set aside": len(told)
            != len(learned) + len(set_aside) + len(undone),
        }
    )
    return Account(
        sent=ledger.sent,
        accepted=len(ledger.accepted),
        duplicates=ledger.duplicates,
        refused=ledger.refused,
        learned=len(learned),
        set_aside=len(set_aside),
        rolled_back=len(undone),
        faults=faults,
    )


def all_covered(url: str, model: str) -> bool:
    """Tell whether the learner has come to the end of the feedback stream."""
    with redis.Redis.from_url(url) as server:
        feedback: Any = server.xrevrange(f"ol:{{{model}}}:feedback", count=1)
        steps: Any = server.xrevrange(f"ol:{{{model}}}:steps", count=1)
    return not feedback or (bool(steps) and steps[0][0] == feedback[0][0])


def _faults(checks: dict[str, bool]) -> tuple[str, ...]:
    return tuple(sentence for sentence, failed in checks.items() if failed)


def _read(server: Any, model: str, name: str) -> list[tuple[Entry, dict[bytes, bytes]]]:
    entries = server.xrange(f"ol:{{{model}}}:{name}")
    return [(_entry(entry.decode()), fields) for entry, fields in entries]


def _version_offsets(server: Any, model: str) -> dict[int, Entry]:
    found = {}
    for key in server.scan_iter(f"ol:{{{model}}}:version:*"):
        meta = json.loads(server.hget(key, "meta"))
        found[int(key.rsplit(b":", 1)[1])] = _entry(meta["offset"])
    return found


def _entry(text: str) -> Entry:
    ms, _, seq = text.partition("-")
    return int(ms), int(seq)


def _address(feedback_id: str) -> Entry:
    """Read the place of an entry out of its id: 6 bytes of milliseconds, 4 of sequence."""
    raw = base64.urlsafe_b64decode(feedback_id + "==")
    return int.from_bytes(raw[7:13], "big"), int.from_bytes(raw[13:17], "big")
