"""Stage 2: append what was asked and answered, before the answer leaves.

Appends of concurrent requests share one round trip: while one group is on its way to the disk, the
next one gathers. With each answer goes all that is found by it later: what the roles answered that
the gate compares, the caller's own names for it, what the rules said, and, the first time that a
set of weights answers, the moment at which it did.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from online_learner.errors import Erased, NotFound
from online_learner.ids import Address, new_nonce
from online_learner.interpret import ERASED
from online_learner.retain import why_gone
from online_learner.schema import Audit, Feedback, Prediction, Served, label_key, pack
from online_learner.store import Store
from online_learner.store.group import GroupCommit
from online_learner.store.keys import Keys

GROUP_MAX = 512
WINDOW_S = 86_400.0
STREAMS = ("predictions", "audits", "feedback", "served", "asked")
SEGMENT_MAX = 64


class Known(Address):
    """The address of an answer that was logged before, under the same `external_id`."""

    __slots__ = ()


@dataclass(slots=True)
class _Records:
    nonces: list[str]
    predictions: Sequence[Prediction]
    packed: list[bytes]
    once: Sequence[bool]


class Journal:
    """The log of one model's answers.

    Create it inside the event loop that uses it.

    Parameters
    ----------
    window_s
        For how many seconds an answer is found by its session, or by the caller's own id.
    segments
        Features or tags whose values the gate is told, to guard each of their groups.
    """

    def __init__(
        self, store: Store, model: str, *, window_s: float = WINDOW_S, segments: Sequence[str] = ()
    ) -> None:
        self._store = store
        self._keys = Keys(model)
        self._group = GroupCommit(self._append, most=GROUP_MAX)
        self._window_s = max(1, int(window_s) + 1)
        self._segments = tuple(segments)
        self._marked: dict[str, Served] = {}  # by role, the weights whose first answer is on record

    async def append(
        self, predictions: Sequence[Prediction], once: Sequence[bool] = ()
    ) -> list[Address]:
        """Append answers; returns their addresses once the server has acknowledged all of them.

        The records are kept even if the caller is cancelled meanwhile.

        Parameters
        ----------
        once
            Of each, whether it is left out where one is found by its `external_id`; the address of
            that one is then returned, as `Known`. Empty where none is.

        Raises
        ------
        Unavailable
            The store did not acknowledge them.
        """
        nonces = [new_nonce() for _ in predictions]
        packed = [prediction.pack() for prediction in predictions]
        return await self._group.submit(_Records(nonces, predictions, packed, once))

    async def _append(self, group: list[_Records]) -> list[list[Address]]:
        keys = [getattr(self._keys, name) for name in STREAMS]
        arguments: list[bytes | str | int] = [self._window_s]
        marked = dict(self._marked)
        for records in group:
            once = records.once or itertools.repeat(False, len(records.nonces))  # noqa: FBT003
            rows = zip(records.nonces, records.predictions, records.packed, once, strict=True)
            for nonce, prediction, packed, one in rows:
                first = _first_answer(prediction, marked)
                names = self._names(prediction, keys, once=one)
                flags = list(_flags(prediction))
                arguments += (nonce, packed, _audit(prediction, self._segments))
                arguments += (_question(prediction), first, names, len(flags) // 2, *flags)
        found = iter(await self._store.run("journal", keys, arguments))
        self._marked = marked
        return [[_address(next(found), nonce) for nonce in records.nonces] for records in group]

    def _names(self, prediction: Prediction, keys: list[str], *, once: bool) -> str:
        """Return where in `keys`, from 1, the lists are under which an answer is found."""
        if prediction.session_id is None and prediction.external_id is None:
            return ""
        pairs = {"session_id": prediction.session_id, "external_id": prediction.external_id}
        places = []
        for kind, name in pairs.items():
            if name is not None:
                keys.append(self._keys.ref(kind, name))
                places.append(str(len(keys)))
        first = ["once", places[-1]] if once and prediction.external_id is not None else []
        return " ".join([*first, *places])

    async def read(self, address: Address) -> Prediction:
        """Return the record at an address.

        Raises
        ------
        Erased
            Nothing of it is kept but its place.
        NotFound
            Nothing is there, or another record is: what was acknowledged has been lost.
        """
        entries = await self._store.range(self._keys.predictions, address.entry, address.entry)
        if entries and ERASED in entries[0][1]:
            raise Erased(Erased.TOLD)
        if not entries or entries[0][1][b"n"].decode() != address.nonce:
            why = await why_gone(self._store, self._keys, "predictions", address.entry)
            raise NotFound(
                f"this prediction was issued here, and is no longer in the log: {why}",
                code="unknown_prediction",
            )
        return Prediction.model_validate_json(entries[0][1][b"r"])


def _first_answer(prediction: Prediction, marked: dict[str, Served]) -> bytes:
    """Return the entry that marks the first answer of these weights in their role, or nothing."""
    if prediction.imported:
        return b""
    known = marked.get(prediction.role)
    if (
        known is not None
        and known.step == prediction.step
        and known.lineage == prediction.lineage
        and known.version == prediction.version
    ):
        return b""
    served = Served(version=prediction.version, lineage=prediction.lineage, step=prediction.step)
    marked[prediction.role] = served
    return served.pack()


def _flags(prediction: Prediction) -> Iterable[bytes | str]:
    """Yield, for each flag that speaks about the output, the signal that it is, and a nonce."""
    for flag in prediction.flags:
        if flag.where == "output" and flag.severity != "note":
            signal = Feedback(
                kind="flag",
                value=flag.model_dump(exclude={"where"}),
                source=f"system:{flag.rule}",
                prediction_id="",
            )
            yield signal.pack()
            yield new_nonce()


def _audit(prediction: Prediction, segments: Sequence[str]) -> bytes:
    """Return what the gatekeeper reads of an audited answer, or nothing."""
    if prediction.ask is None or prediction.ask.reason != "audit":
        return b""
    return Audit(
        generation=prediction.generation,
        roles=prediction.shadows,
        shown=prediction.role,
        chances=prediction.chances,
        segments={name: _segment(prediction, name) for name in segments},
    ).pack()


def _question(prediction: Prediction) -> bytes:
    """Return why a label is asked for, and how much it is worth, or nothing; audits are apart."""
    if prediction.ask is None or prediction.audited:
        return b""
    return pack({"reason": prediction.ask.reason, "value": round(prediction.uncertainty, 6)})


def _segment(prediction: Prediction, name: str) -> str:
    """Return the value of a feature or a tag as a short text; nothing where it is missing."""
    value = prediction.features.get(name, prediction.tags.get(name))
    return "" if value is None else label_key(value)[:SEGMENT_MAX]


def _address(entry: bytes, nonce: str) -> Address:
    known = b"|" in entry
    if known:
        entry, nonce = entry[: entry.index(b"|")], entry[entry.index(b"|") + 1 :].decode()
    ms, seq = entry.split(b"-")
    return (Known if known else Address)(int(ms), int(seq), nonce)
