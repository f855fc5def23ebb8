"""Mutations of stored states: by somebody who writes to the store, and by one with the secret."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from benchmarks.hostile.gadgets import gadgets
from online_learner.registry import Registry
from online_learner.schema import Checkpoint, GateState
from online_learner.store import Fields


class Held(NamedTuple):
    """What is stored of one model, and other genuine states to mistake it for."""

    purpose: str
    key: str
    fields: Fields
    record: type[Checkpoint | GateState]
    others: dict[str, Fields]  # genuine, and not this one


# --- mutations --------------------------------------------------------------------------------

Mutation: TypeAlias = Callable[["Forger", random.Random], "Fields | None"]


class Forger:
    """Makes mutations of one state.

    Parameters
    ----------
    registry
        What seals them, where they are to be sealed.
    mark
        The file that an attack leaves where it is run.
    """

    def __init__(self, registry: Registry, held: Held, mark: Path) -> None:
        self.registry = registry
        self.held = held
        self.blob = held.fields.get(b"blob", b"")
        self.gadgets = sorted(gadgets(mark).items())

    def sealed(
        self,
        *,
        blob: bytes | None = None,
        meta: bytes | None = None,
        memory: bytes | None = None,
    ) -> Fields:
        """Return fields with other bytes, or other metadata, and a good seal."""
        blob = self.blob if blob is None else blob
        memory = self.held.fields.get(b"memory", b"") if memory is None else memory
        meta = self.held.fields[b"meta"] if meta is None else meta
        loose = self.held.record.model_construct()
        object.__setattr__(loose, "pack", lambda: meta)
        found = self.registry.seal(self.held.purpose, loose, blob=blob, memory=memory).fields()
        fields = {name.encode(): value.encode() for name, value in found.items()}
        return fields | ({b"blob": blob, b"memory": memory} if self.blob else {})

    def parts(self) -> tuple[dict[str, Any], bytes]:
        """Return header and weights of the state."""
        length = struct.unpack(">I", self.blob[4:8])[0]
        return json.loads(self.blob[8 : 8 + length]), self.blob[8 + length :]

    def packed(self, header: bytes, weights: bytes) -> Fields:
        """Return a state of a header and weights, with a good seal."""
        head = struct.pack(">4sI", b"OLS1", len(header))
        return self.sealed(blob=head + header + weights)


def flipped(data: bytes, rng: random.Random) -> bytes:
    """Return the bytes with one bit turned."""
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


def cut(data: bytes, rng: random.Random) -> bytes:
    """Return the bytes without their end, with more behind them, or without a part."""
    at, to = sorted(rng.sample(range(len(data) + 1), 2))
    return rng.choice([data[:at], data + rng.randbytes(to - at), data[:at] + data[to:]])


def one_field(change: Callable[[bytes, random.Random], bytes]) -> Mutation:
    """Return a mutation that changes one field, and seals nothing."""

    def mutate(forger: Forger, rng: random.Random) -> Fields:
        name = rng.choice(sorted(forger.held.fields))
        return forger.held.fields | {name: change(forger.held.fields[name], rng)}

    return mutate


def without_a_field(forger: Forger, rng: random.Random) -> Fields:
    """Leave a field out."""
    name = rng.choice(sorted(forger.held.fields))
    return {key: value for key, value in forger.held.fields.items() if key != name}


def of_another(forger: Forger, rng: random.Random) -> Fields:
    """Put a genuine state of something else in its place."""
    return forger.held.others[rng.choice(sorted(forger.held.others))]


def mixed(forger: Forger, rng: random.Random) -> Fields | None:
    """Take some fields of it, and the others of another genuine state."""
    other = forger.held.others[rng.choice(sorted(forger.held.others))]
    names = sorted(forger.held.fields)
    taken = rng.sample(names, rng.randint(1, len(names) - 1))
    made = forger.held.fields | {name: other[name] for name in taken if name in other}
    return None if made == forger.held.fields else made


def foreign_seal(forger: Forger, rng: random.Random) -> Fields:
    """Seal an attack with a secret of one's own."""
    fields = forger.sealed(blob=rng.choice(forger.gadgets)[1])
    return fields | {b"mac": rng.randbytes(32).hex().encode(), b"blob": forger.blob or b"x"}


WITHOUT: dict[str, Mutation] = {
    "a bit turned": one_field(flipped),
    "cut, or longer": one_field(cut),
    "a field missing": without_a_field,
    "another genuine state": of_another,
    "fields of two states": mixed,
    "a seal of a stranger": foreign_seal,
}


def bits(forger: Forger, rng: random.Random) -> Fields:
    """Turn a bit of the state."""
    return forger.sealed(blob=flipped(forger.blob, rng))


def lengths(forger: Forger, rng: random.Random) -> Fields:
    """Cut the state."""
    return forger.sealed(blob=cut(forger.blob, rng))


def pickles(forger: Forger, rng: random.Random) -> Fields:
    """Put a pickle that does harm in the place of the weights."""
    header, _ = forger.parts()
    return forger.packed(json.dumps(header).encode(), rng.choice(forger.gadgets)[1])


def headers(forger: Forger, rng: random.Random) -> Fields:
    """Tamper with our own header."""
    header, weights = forger.parts()
    name, value = rng.choice(
        [
            ("family", "none"),
            ("family", ["river"]),
            ("library", "0.1"),
            ("library", None),
        ]
    )
    text = json.dumps(header | {name: value}).encode()
    deep = b"[" * 100_000
    return forger.packed(rng.choice([text, text, text, deep, b"\xff" * 40, b"7"]), weights)


def memories(forger: Forger, rng: random.Random) -> Fields:
    """Tamper with what is remembered of the raters."""
    told: list[Any] = [
        [],
        {"signals": 7},
        {"validation": {"raters": [1]}},
        {"signals": {"raters": {"a": ["x"]}}},
    ]
    genuine = forger.held.fields[b"memory"]
    texts = [*(json.dumps(memory).encode() for memory in told), b"[" * 100_000, b"\xff" * 40, b"7"]
    made = [flipped(genuine, rng), cut(genuine, rng), zlib.compress(rng.choice(texts))]
    return forger.sealed(memory=rng.choice(made))


def safetensors(forger: Forger, rng: random.Random) -> Fields | None:
    """Tamper with the header of the tensors."""
    header, weights = forger.parts()
    if header["family"] != "torch":
        return None
    length = int.from_bytes(weights[:8], "little")
    told, data = json.loads(weights[8 : 8 + length]), weights[8 + length :]
    names = sorted(name for name in told if name != "__metadata__")
    name, other = rng.choice(names), rng.choice(names)
    about = json.loads(told["__metadata__"]["about"])
    tensor = told[name]
    begin, end = tensor["data_offsets"]
    changes: list[dict[str, Any]] = [
        {name: tensor | {"data_offsets": [begin, end + rng.choice([-1, 1, 1 << 40])]}},
        {name: tensor | {"data_offsets": [end, begin]}},
        {name: tensor | {"data_offsets": [-1, end]}},
        {name: tensor | {"shape": [*tensor["shape"], rng.choice([2, 0, 1 << 62])]}},
        {name: tensor | {"shape": tensor["shape"][1:]}},
        {name: tensor | {"dtype": rng.choice(["F64", "I8", "BF16", "F8_E4M3", "BOOL", "X"])}},
        {"another": tensor},
        {"__metadata__": {}},
        {"__metadata__": {"about": "[" * 50_000}},
        {"__metadata__": {"about": json.dumps(about | {"config": {}})}},
        {"__metadata__": {"about": json.dumps(about | {"fitted": [1]})}},
        {"__metadata__": {"about": json.dumps(about | {"width": rng.choice([-1, 1 << 50, "x"])})}},
        {"__metadata__": {"about": json.dumps(about | {"labels": ["spam", "ham"]})}},
    ]
    if told[other] != tensor:
        changes.append({name: told[other], other: tensor})
    made = told | rng.choice(changes)
    text = json.dumps(made).encode()
    size = rng.choice([len(text)] * 8 + [0, len(text) - 1, 1 << 40, (1 << 64) - 1])
    return forger.packed(json.dumps(header).encode(), size.to_bytes(8, "little") + text + data)


def not_finite(forger: Forger, rng: random.Random) -> Fields | None:
    """Write a number that is none among the weights."""
    header, weights = forger.parts()
    if header["family"] != "torch":
        return None
    length = int.from_bytes(weights[:8], "little")
    told = json.loads(weights[8 : 8 + length])
    floats = [t for n, t in told.items() if n != "__metadata__" and t["dtype"] in ("F32", "F64")]
    tensor = rng.choice([t for t in floats if t["data_offsets"][0] < t["data_offsets"][1]])
    size = 4 if tensor["dtype"] == "F32" else 8
    begin, end = tensor["data_offsets"]
    at = 8 + length + begin + size * rng.randrange((end - begin) // size)
    number = struct.pack("<f" if size == 4 else "<d", rng.choice([float("nan"), float("inf")]))
    made = weights[:at] + number + weights[at + size :]
    return forger.packed(json.dumps(header).encode(), made)


def records(forger: Forger, rng: random.Random) -> Fields:
    """Tamper with the metadata."""
    meta = json.loads(forger.held.fields[b"meta"])
    name = rng.choice(sorted(meta))
    made = rng.choice(
        [
            json.dumps({key: value for key, value in meta.items() if key != "state_digest"}),
            json.dumps(meta | {"state_digest": "0" * 32, "settled": 5}),
            json.dumps(meta | {name: {"a": [1]}}),
            json.dumps(meta | {"unheard_of": 1}),
            json.dumps(meta)[: rng.randrange(len(meta))],
            "[" * 50_000,
        ]
    )
    return forger.sealed(meta=made.encode())


WITH: dict[str, Mutation] = {
    "a bit turned": bits,
    "cut, or longer": lengths,
    "a pickle that does harm": pickles,
    "our header": headers,
    "what is remembered of the raters": memories,
    "the header of the tensors": safetensors,
    "a weight that is not finite": not_finite,
    "metadata": records,
}
