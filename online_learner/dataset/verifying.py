"""Whether the files of a version are as they were written, to the byte."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from online_learner.archive.place import Place
from online_learner.dataset.manifest import CARD, MANIFEST, File, Manifest
from online_learner.errors import DataError

_CHUNK_BYTES = 1 << 20


def all_troubles(place: Place, manifest: Manifest) -> Iterator[str]:
    """Yield what is wrong with a version's files: changed, cut short, missing, or too many."""
    for file in manifest.files:
        yield from troubles(place, file)
    yield from _card_troubles(place, manifest)
    known = {CARD, MANIFEST, *(file.path for file in manifest.files)}
    for path in place.files():
        if path not in known:
            yield f"{path} does not belong to it"


def troubles(place: Place, file: File) -> Iterator[str]:
    """Yield what is wrong with a file."""
    try:
        size = place.size(file.path)
        if size is None:
            yield f"{file.path} is missing"
        elif size != file.size:
            yield f"{file.path} has {size} bytes, and was written with {file.size}"
        elif _sha256(place, file.path) != file.sha256:
            yield f"{file.path} is not as it was written"
    except DataError as error:
        yield str(error)


def _card_troubles(place: Place, manifest: Manifest) -> Iterator[str]:
    try:
        card = place.read(CARD)
    except DataError as error:
        yield f"{CARD} is missing" if error.code == "missing" else str(error)
        return
    if hashlib.sha256(card).hexdigest() != manifest.card_sha256:
        yield f"{CARD} is not as it was written"


def _sha256(place: Place, name: str) -> str:
    digest = hashlib.sha256()
    with place.input(name) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
