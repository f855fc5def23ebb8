"""Stage 6: ask the policy, and move the aliases by compare-and-set.

One script commits it all or nothing: evidence, the gate's own state, the verdict, the aliases and,
for a pull, the control entry that resets the learner.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from pydantic import ValidationError

from online_learner.candidates import decided, waiting
from online_learner.errors import Conflict, Fenced, StateError
from online_learner.evidence import Case, Duel, Terms, Unpaired
from online_learner.ids import entry_order
from online_learner.judge import Judge
from online_learner.naming import label_names
from online_learner.registry import Registry
from online_learner.retain import trimmed_to
from online_learner.schema import (
    Alarm,
    Aliases,
    Audit,
    Control,
    Feedback,
    GateState,
    Move,
    Prediction,
    Said,
    Settled,
)
from online_learner.settings import ModelSpec
from online_learner.store import Entry
from online_learner.store.keys import Keys

log = logging.getLogger(__name__)

READ_MAX = 1000
LINEAGE_TESTS = 2  # at most, beside those of challengers: against the reference, and the detector
NO_ANSWER = ("flag", "implicit")  # what the system notes and what users do is not evidence


class Policy(Protocol):
    """Decides about promotion; see `policies.promotion`."""

    @property
    def max_open(self) -> int:
        """How many challengers may be under test at once."""

    def duels(self, aliases: Aliases) -> list[Duel]:
        """Return the comparisons to make."""

    def decide(self, case: Case) -> Move | None:
        """Return what should move after the newest settled audit, or None."""


class Signals(Protocol):
    """What a signal tells the gate; see `policies.signals`."""

    def said(self, feedback: Feedback, prediction: Prediction) -> Said:
        """Return the right answer, or how good what was shown is; what it does not tell is None."""


class Gatekeeper:
    """The single writer of one model's evidence, and the one who moves its aliases."""

    def __init__(
        self,
        registry: Registry,
        spec: ModelSpec,
        policy: Policy,
        signals: Signals,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.registry = registry
        self.store = registry.store
        self.keys = registry.keys
        self.policy = policy
        self._spec = spec
        self.judge = self._judge()
        self._signals = signals
        self._clock = clock
        self.alive: Callable[[], Awaitable[None]] | None = None  # awaited as a long turn goes on
        self.heard: Callable[[Sequence[Entry]], None] = lambda _entries: None  # told what was read
        self.moved: Move | None = None  # what the newest turn decided
        self._fence: str | None = None
        self._audits = "0-0"
        self._feedback = "0-0"
        self._heard_until = 0.0
        self._passed_over: set[str] = set()

    def _judge(self, state: GateState | None = None) -> Judge:
        spec, terms = self._spec, terms_of(self._spec, self.policy.max_open)
        names = label_names(spec, self.registry.keyring, self.registry.model)
        return Judge(terms=terms, deadline_s=spec.audit_deadline_s, state=state, names=names)

    async def restore(self) -> None:
        """Take the fence and the committed state; what was pending is read again."""
        self._fence = None
        fence = str(await self.store.essential("INCR", self.keys.fence("gatekeeper")))
        try:
            self.judge = await self.load_judge()
        except StateError as error:
            await self._begin_anew(fence, error)
        # A signal comes after its prediction, so none on a pending one is older than the last
        # settled prediction; but within one millisecond each stream counts for itself.
        self._audits = self.judge.settled
        self._feedback = f"{max(0, entry_order(self._audits)[0] - 1)}-0"
        self._fence = fence

    async def load_judge(self) -> Judge:
        """Return a judge with the committed state; raises `StateError` where it is not sound."""
        state = await self.registry.gate()
        try:
            return self._judge(state)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise StateError(f"the gate's state of '{self.registry.model}' is damaged") from error

    async def _begin_anew(self, fence: str, error: Exception) -> None:
        """Replace a state that is refused by one that promotes nothing too early.

        What has settled stays settled. All tests begin anew, and as if as many had gone before as
        there can have been; so the bound on false promotions holds.
        """
        aliases = await self.registry.aliases()
        if aliases is None:
            raise StateError(f"'{self.registry.model}' has a gate, and no aliases") from error
        log.error(
            "the gate's state of '%s' is refused, and all of its tests begin anew: %s",
            self.registry.model,
            error,
        )
        newest = [await trimmed_to(self.store, self.keys, "evidence")]
        newest += [entry for entry, _ in await self.store.latest(self.keys.evidence, 1)]
        settled = max(newest, key=entry_order)
        known = (aliases.champion, aliases.anchor, aliases.previous, *aliases.challengers)
        state = GateState(
            settled=settled,
            watched=settled,
            answered=int(await self.store.call("XLEN", self.keys.evidence)),
            candidates=aliases.epoch * (self.policy.max_open + LINEAGE_TESTS),
            newest=max(number for number in known if number is not None),
        )
        self.judge = self._judge(state)
        await commit_move(self.registry, aliases, None, fence=fence, state=state, now=self._clock())

    async def turn(self, *, block_ms: int | None = None) -> int:
        """Read what has arrived, settle what can settle, and decide.

        Returns
        -------
        How much there was to do: entries read, predictions settled, moves; 0 when all is done.

        Raises
        ------
        Fenced
            Another gatekeeper of this model has started; this one must stop.
        Unavailable
            The store does not answer. The next turn starts from the last commit.
        """
        if self._fence is None:
            await self.restore()
        aliases = await self.registry.aliases()
        if aliases is None:
            return 0
        read = await self._read(block_ms)
        try:
            return read + await self._settle(aliases, heard_until=self._heard_until)
        except BaseException:
            self._fence = None  # what is in memory may not be what was committed
            raise

    async def _read(self, block_ms: int | None) -> int:
        read, started = 0, self._clock()
        offsets = {self.keys.audits: self._audits, self.keys.feedback: self._feedback}
        found = await self.store.read(offsets, count=READ_MAX, block_ms=block_ms)
        self.heard(found.get(self.keys.feedback, []))
        for entry, fields in found.get(self.keys.audits, []):
            self._see_audit(entry, fields)
            self._audits = entry
            read += 1
        said = found.get(self.keys.feedback, [])
        for entry, fields in said:
            if not self._see_feedback(entry, fields):
                break
            self._feedback = entry
            read += 1
        drained = len(said) < READ_MAX and (not said or said[-1][0] == self._feedback)
        self._heard_until = started if drained else entry_order(self._feedback)[0] / 1000
        return read

    def _see_audit(self, entry: str, fields: dict[bytes, bytes]) -> None:
        try:
            audit = Audit.model_validate_json(fields[b"a"])
        except (KeyError, ValidationError):
            self._pass_over(f"audit {entry}", "it is none of ours")
        else:
            self.judge.see_audit(entry, audit)

    def _pass_over(self, what: str, why: object) -> None:
        """Say once why the gate goes on without something."""
        if what not in self._passed_over:
            self._passed_over.add(what)
            log.error("%s of '%s' is passed over: %s", what, self.registry.model, why)

    def _see_feedback(self, where: str, fields: dict[bytes, bytes]) -> bool:
        """Take in one feedback entry; False where its prediction's audit is yet to be read."""
        try:
            feedback = Feedback.model_validate_json(fields[b"f"])
            prediction = Prediction.model_validate_json(fields[b"r"])
            entry = fields[b"p"].decode()
            asked = entry_order(entry)
        except (KeyError, ValueError):  # control, or what the learner sets aside as unreadable
            return True
        if prediction.ask is None or prediction.ask.reason != "audit" or feedback.kind in NO_ANSWER:
            return True
        if asked > entry_order(self._audits):
            return False
        try:
            said = self._signals.said(feedback, prediction)
        except Exception:  # a table of a team's own; the learner says what it raises
            return True
        rater = self.registry.keyring.mac("rater", feedback.source.encode()).hex()[:12]
        at_ms, auditor = entry_order(where)[0], feedback.auditor
        self.judge.see_signal(entry, said, rater=rater, auditor=auditor, at_ms=at_ms)
        return True

    async def _settle(self, aliases: Aliases, *, heard_until: float) -> int:
        """Settle up to the time until which all signals have been seen, and decide."""
        evidence: list[tuple[str, Settled]] = []
        newest, see = self.judge.newest, self._pass_over
        candidates = await waiting(self.registry, aliases, self.policy, after=newest, damaged=see)
        self.judge.open(self.policy.duels(aliases), aliases)
        alarms = self.judge.alarms(aliases, self._spec.guards)
        move = self._decide(aliases, candidates, alarms)
        if move is None:
            for entry, settled in self.judge.settle(now=heard_until):
                if self.alive is not None:
                    await self.alive()
                evidence.append((entry, settled))
                move = self._decide(aliases, candidates, alarms)
                if move is not None:
                    break
        self.moved = move
        if move is None and not evidence:
            return 0
        if move is not None:
            move = self._placed(move)
            self.judge.newest = max([self.judge.newest, *decided(move, aliases, candidates)])
            self.judge.promotions += move.verdict is not None and move.verdict.action in CROWNED
            self.judge.restart(move.restart)
            if move.verdict is not None and move.verdict.guard == "unpaired":
                self.judge.unpaired = Unpaired()  # after a thaw, what is usual by then
            after = move.aliases
            self.judge.open(self.policy.duels(after), after)
        await commit_move(
            self.registry,
            aliases,
            move,
            fence=self._fence,
            evidence=evidence,
            state=self.judge.state(now=self._clock()),
            now=self._clock(),
        )
        return len(evidence) + (move is not None)

    def _decide(
        self, aliases: Aliases, candidates: Sequence[int], alarms: Sequence[Alarm]
    ) -> Move | None:
        return self.policy.decide(self.judge.case(aliases, candidates, alarms))

    def _placed(self, move: Move) -> Move:
        """Return a move whose verdict says where in the streams it was decided."""
        if move.verdict is None:
            return move
        place = {"settled": self.judge.settled, "offset": self._feedback}
        return replace(move, verdict=move.verdict.model_copy(update=place))


CROWNED = ("promote", "follow", "bless")


def terms_of(spec: ModelSpec, max_open: int) -> Terms:
    """Return what a model's evidence is subject to."""
    exposed = (1.0 - spec.exposure) * spec.audit
    propensities = spec.exposure / (max_open + 1), exposed / (spec.exposure + exposed or 1.0)
    return Terms(
        gamma=spec.gamma,
        malice=spec.malice,
        rater_share=spec.rater_share,
        min_raters=spec.min_raters,
        least_propensity=min(propensities),
        audit=spec.audit,
    )


async def commit_move(
    registry: Registry,
    before: Aliases,
    move: Move | None,
    *,
    now: float,
    fence: str | None = None,
    evidence: Sequence[tuple[str, Settled]] = (),
    state: GateState | None = None,
) -> Aliases:
    """Commit a decision, the gate's progress, or both. Returns the aliases as they are then.

    Raises
    ------
    Fenced
        Another gatekeeper has taken over. Nothing was written.
    Conflict
        The aliases have moved since `before` was read. Nothing was written.
    StateError
        The version that the learner is to go back to cannot be loaded. Nothing was written.
    """
    if move is not None and move.reset_to is not None:
        await registry.check_whole(move.reset_to)
    keys, head = registry.keys, _progress(registry, fence, evidence, state)
    names = decide_keys(keys)
    after = before
    if move is not None:
        after = move.aliases.model_copy(update={"epoch": before.epoch + 1})
        head |= {"epoch": str(before.epoch), "aliases": registry.seal_aliases(after)}
        head |= {"publish": keys.swap, "versions": []}
        head |= {"pin": after.lineage} if move.pin else {}
        for number, status in move.statuses.items():
            key, change = await registry.restatus(number, status)
            names.append(key)
            head["versions"].append(change)
        head |= _announcement(move, after, now)
    reply = await registry.store.run("decide", names, [json.dumps(head)])
    if reply == b"fenced":
        raise Fenced(f"another gatekeeper of '{registry.model}' has taken over")
    if reply == b"conflict":
        raise Conflict("the aliases have moved meanwhile; look again, then decide again")
    return after


def decide_keys(keys: Keys) -> list[str]:
    """Return the keys that the script `decide` takes, but those of versions."""
    return [
        keys.fence("gatekeeper"),
        keys.checkpoint("gatekeeper"),
        keys.evidence,
        keys.verdicts,
        keys.aliases,
        keys.feedback,
        keys.pinned,
        keys.checkpoint("learner"),
    ]


def _progress(
    registry: Registry,
    fence: str | None,
    evidence: Sequence[tuple[str, Settled]],
    state: GateState | None,
) -> dict[str, Any]:
    head: dict[str, Any] = {}
    if fence is not None:
        head["fence"] = fence
    if evidence:
        head["evidence"] = [[entry, settled.pack().decode()] for entry, settled in evidence]
    if state is not None:
        head["state"] = registry.seal("gate", state).fields()
    return head


def _announcement(move: Move, after: Aliases, now: float) -> dict[str, Any]:
    head: dict[str, Any] = {}
    if move.verdict is not None:
        verdict = move.verdict.model_copy(update={"epoch": after.epoch, "at": now})
        head["verdicts"] = [verdict.pack().decode()]
    if move.reset_to is not None:
        reason = move.verdict.sentence if move.verdict is not None else ""
        control = Control(
            action="reset", to_version=move.reset_to, lineage=after.lineage, reason=reason
        )
        head["control"] = control.model_dump_json()
    return head
