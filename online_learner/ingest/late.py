"""Stage 3, for answers whose window has passed: what they were, as far as it can be read here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from online_learner.errors import DataError, Erased, WindowClosed
from online_learner.ids import Address
from online_learner.ingest.admit import Admission
from online_learner.interpret import ERASED
from online_learner.schema import Prediction
from online_learner.store import Fields

READS = 256  # answers that are looked up together
Found = Prediction | None | Exception


async def recall(
    admissions: Mapping[str, Admission], wanted: Sequence[tuple[str, Address]]
) -> list[Found]:
    """Return answers from archive or store, None where the archive cannot be read here.

    In the place of one that is gone stands the error: `Erased`, or `WindowClosed` where it was
    trimmed before there was an archive.
    """
    found: dict[tuple[str, Address], Found] = {}
    for model in dict.fromkeys(model for model, _ in wanted):
        addresses = list(dict.fromkeys(address for of, address in wanted if of == model))
        entries = await _entries(admissions[model], addresses)
        for address, fields in zip(addresses, entries, strict=True):
            found[model, address] = _read(address, fields)
    return [found[each] for each in wanted]


async def _entries(admission: Admission, addresses: Sequence[Address]) -> list[Fields | str | None]:
    log = admission.log
    if log is None:  # it had one a moment ago
        return [None for _ in addresses]
    try:
        return list(await log.entries([("predictions", address.entry) for address in addresses]))
    except DataError:  # on another node, or damaged: whoever compiles a dataset looks again
        return ["unreadable" for _ in addresses]


def _read(address: Address, fields: Fields | str | None) -> Found:
    if isinstance(fields, str):
        return None
    if fields is not None and ERASED in fields:
        return Erased(Erased.TOLD)
    if fields is None or fields.get(b"n", b"").decode() != address.nonce:
        return WindowClosed(
            "the window in which feedback is taken has passed, and this prediction is not in the "
            "archive. Predict again, or raise window_s."
        )
    return Prediction.model_validate_json(fields[b"r"])
