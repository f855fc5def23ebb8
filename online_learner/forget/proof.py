"""Proof of what was erased, without what that was: sealed, and kept for good."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pydantic import Field

from online_learner.archive.log import Log
from online_learner.errors import NotFound, StateError
from online_learner.forget.rebuild import still_in
from online_learner.forget.unlearn import within_reach
from online_learner.ids import entry_order
from online_learner.registry import SEAL, Registry
from online_learner.schema import Record

PURPOSE = "erasure"
PAGE = 500

Unlearned: TypeAlias = Literal["done", "pending", "nothing", "impossible"]


class Proof(Record):
    """What one run of an erasure did.

    Parameters
    ----------
    pseudonyms
        Keyed hashes of the person's names; see `person.pseudonym`.
    erased
        By stream, how many entries have nothing left but their place.
    changed
        By stream, how many entries of others spoke of the person, and do no longer.
    marks
        Keys and fields that led to what was erased, and are gone.
    segments
        Files of the archive that were written anew.
    aof, rdb
        What became of the server's files; see `disk.Disk`. `todo` is what is left to an operator.
    anew
        Observers that begin anew, since they knew words that only this person sent.
    controls
        The entries of the feedback stream by which the signals were retracted.
    late
        The entries of signals that had only gone on file.
    labels
        What stands for labels that only this person gave, in what others were answered.
    unlearned
        `done`: they are in no weights any more; `pending`: the learner has yet to do it;
        `nothing`: there was no signal; `impossible`: the record does not go back to before them.
    state_before, state_after
        Digests of the learner's newest state. The latter is empty while it is pending.
    rebuilt, tainted
        Versions that were learned anew without these signals, and that could not be.
    datasets
        Versions of datasets that hold some of the signals still; `removed` are gone.
    first
        The proof of the run that this one goes on with.
    """

    pseudonyms: list[str]
    by: str
    began_at: float
    at: float
    erased: dict[str, int] = Field(default_factory=dict)
    changed: dict[str, int] = Field(default_factory=dict)
    marks: int = 0
    segments: int = 0
    aof: str = "unproven"
    rdb: str = "unproven"
    todo: str = ""
    anew: list[str] = Field(default_factory=list)
    controls: list[str] = Field(default_factory=list)
    late: list[str] = Field(default_factory=list)
    labels: list[str] = Field(default_factory=list)
    unlearned: Unlearned = "nothing"
    state_before: str = ""
    state_after: str = ""
    rebuilt: list[int] = Field(default_factory=list)
    tainted: list[int] = Field(default_factory=list)
    datasets: list[str] = Field(default_factory=list)
    removed: list[str] = Field(default_factory=list)
    first: str = ""


class Intent(Record):
    """What an erasure that is under way is about, by places alone: it goes on where it stopped."""

    predictions: list[str] = Field(default_factory=list)
    feedback: list[str] = Field(default_factory=list)
    late: list[str] = Field(default_factory=list)
    labels: list[str] = Field(default_factory=list)
    began_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Kept:
    """A proof, where it is kept, and its seal."""

    id: str
    proof: Proof
    seal: dict[str, str]

    def render(self) -> dict[str, Any]:
        """Return it as a document that can be handed out, and be verified later."""
        return {"id": self.id, **self.proof.model_dump(), "seal": self.seal}


# --- intents ----------------------------------------------------------------------------------


async def begun(registry: Registry, pseudonyms: Iterable[str]) -> Intent | None:
    """Return what an erasure of this person was about that has not ended."""
    for pseudonym in pseudonyms:
        found = await registry.store.call("HGET", registry.keys.erasing, pseudonym)
        if found is not None:
            return _intent(registry, found)
    return None


async def begin(registry: Registry, pseudonyms: Iterable[str], intent: Intent) -> None:
    """Note what is about to be erased, before any of it is."""
    first = min(pseudonyms)
    sealed = registry.seal("erasing", intent, sha="-")
    value = f"{sealed.mac} {sealed.meta}"
    await registry.store.call("HSET", registry.keys.erasing, first, value)


async def end(registry: Registry, pseudonyms: Iterable[str]) -> None:
    """Note that all of it was erased."""
    await registry.store.call("HDEL", registry.keys.erasing, *pseudonyms)


def _intent(registry: Registry, value: bytes) -> Intent:
    mac, _, meta = value.partition(b" ")
    fields = {b"meta": meta, b"sha": b"-", b"mac": mac}
    return registry.unseal("erasing", fields, Intent)[0]


# --- proofs -----------------------------------------------------------------------------------


async def keep(registry: Registry, proof: Proof) -> Kept:
    """Seal a proof, and keep it."""
    seal = registry.seal(PURPOSE, proof, sha="-").fields()
    fields = [part for pair in seal.items() for part in pair]
    entry: bytes = await registry.store.call("XADD", registry.keys.erasures, "*", *fields)
    return Kept(entry.decode(), proof, seal)


async def proofs(registry: Registry, pseudonyms: Iterable[str] | None = None) -> list[Kept]:
    """Return the proofs that are kept, oldest first: all, or those of one person.

    Raises
    ------
    StateError
        One of them carries no valid seal.
    """
    wanted = None if pseudonyms is None else set(pseudonyms)
    found, after = [], "-"
    while page := await registry.store.range(registry.keys.erasures, after, count=PAGE):
        for entry, fields in page:
            kept = opened(registry, entry, {n.decode(): v.decode() for n, v in fields.items()})
            if wanted is None or wanted & set(kept.proof.pseudonyms):
                found.append(kept)
        after = f"({page[-1][0]}"
    return found


async def proof(registry: Registry, entry: str) -> Kept:
    """Return one proof; raises `NotFound`, and `StateError` where it carries no valid seal."""
    try:
        entry_order(entry)
        found = await registry.store.range(registry.keys.erasures, entry, entry)
    except ValueError:
        found = []
    if not found:
        raise NotFound(
            "there is no erasure with this id here: `online-learner erase --status` lists them",
            code="unknown_erasure",
        )
    return opened(registry, entry, {n.decode(): v.decode() for n, v in found[0][1].items()})


def opened(registry: Registry, entry: str, seal: dict[str, Any]) -> Kept:
    """Verify the seal of a proof; raises `StateError` where it is none of ours, or was changed."""
    fields = {name.decode(): str(seal.get(name.decode(), "")) for name in SEAL}
    sealed = {name.encode(): value.encode() for name, value in fields.items()}
    found, _ = registry.unseal(PURPOSE, sealed, Proof)
    return Kept(entry, found, fields)


def handed_out(registry: Registry, document: dict[str, Any]) -> Kept:
    """Verify a document that `Kept.render` made, against its seal.

    Raises
    ------
    StateError
        It carries no valid seal, or does not say what was sealed.
    """
    seal = document.get("seal")
    if not isinstance(seal, dict):
        raise StateError("this is no proof of an erasure: it carries no seal")
    kept = opened(registry, str(document.get("id", "")), seal)
    if any(document.get(name) != value for name, value in kept.render().items()):
        raise StateError("this proof does not say what was sealed: it was changed")
    return kept


# --- unlearned by now? ------------------------------------------------------------------------


async def unlearned_by_now(log: Log, proof: Proof) -> Unlearned:
    """Return whether the signals of a proof are in no weights any more, as of now."""
    if not proof.controls:
        return "nothing"
    return await standing(log, await signals_of(log.registry, proof))


async def standing(log: Log, entries: Iterable[str]) -> Unlearned:
    """Return whether signals that were retracted are in no weights any more."""
    left = await still_in(log.registry, entries)
    if not left:
        return "done"
    return "pending" if await within_reach(log, left) else "impossible"


async def signals_of(registry: Registry, proof: Proof) -> set[str]:
    """Return the entries of the feedback stream that a proof is about.

    What was retracted is remembered for good; control entries are not, where there is no archive.
    """
    controls = {control.encode() for control in proof.controls}
    marked = await registry.store.hash(registry.keys.retracted)
    return {entry.decode() for entry, control in marked.items() if control in controls}


async def controls_of(registry: Registry, entries: list[str]) -> list[str]:
    """Return the control entries by which signals were retracted, in order."""
    controls: set[str] = set()
    for at in range(0, len(entries), PAGE):
        part = entries[at : at + PAGE]
        found = await registry.store.call("HMGET", registry.keys.retracted, *part)
        controls |= {control.decode() for control in found if control is not None}
    return sorted(controls, key=entry_order)
