"""Stage 2: append what was asked and answered, before the answer leaves.

Appends of concurrent requests share one round trip: while one group is on its way to the disk, the
next one gathers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from online_learner.errors import NotFound
from online_learner.ids import Address, new_nonce
from online_learner.schema import Audit, Prediction
from online_learner.store import Store
from online_learner.store.group import GroupCommit
from online_learner.store.keys import Keys

GROUP_MAX = 512


@dataclass(slots=True)
class _Records:
    nonces: list[str]
    arguments: list[bytes | str]


class Journal:
    """The log of one model's answers.

    Create it inside the event loop that uses it.
    """

    def __init__(self, store: Store, model: str) -> None:
        self._store = store
        self._keys = Keys(model)
        self._group = GroupCommit(self._append, most=GROUP_MAX)

    async def append(self, predictions: Sequence[Prediction]) -> list[Address]:
        """Append answers; returns their addresses once the server has acknowledged all of them.

        The records are kept even if the caller is cancelled meanwhile.

        Raises
        ------
        Unavailable
            The store did not acknowledge them.
        """
        nonces = [new_nonce() for _ in predictions]
        arguments: list[bytes | str] = []
        for nonce, prediction in zip(nonces, predictions, strict=True):
            arguments += (nonce, prediction.pack(), _audit(prediction))
        return await self._group.submit(_Records(nonces, arguments))

    async def _append(self, group: list[_Records]) -> list[list[Address]]:
        arguments = [part for records in group for part in records.arguments]
        keys = [self._keys.predictions, self._keys.audits]
        entries = iter(await self._store.run("journal", keys, arguments))
        return [[_address(next(entries), nonce) for nonce in records.nonces] for records in group]

    async def read(self, address: Address) -> Prediction:
        """Return the record at an address.

        Raises
        ------
        NotFound
            Nothing is there, or another record is: what was acknowledged has been lost.
        """
        entries = await self._store.range(self._keys.predictions, address.entry, address.entry)
        if not entries or entries[0][1][b"n"].decode() != address.nonce:
            raise NotFound(
                "this prediction is not in the log, although it was issued here: it is past the "
                "retention, or the store has lost data",
                code="unknown_prediction",
            )
        return Prediction.model_validate_json(entries[0][1][b"r"])


def _audit(prediction: Prediction) -> bytes:
    if prediction.ask is None or prediction.ask.reason != "audit":
        return b""
    return Audit(generation=prediction.generation, roles=prediction.shadows).pack()


def _address(entry: bytes, nonce: str) -> Address:
    ms, seq = entry.split(b"-")
    return Address(int(ms), int(seq), nonce)
