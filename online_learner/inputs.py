"""What the log keeps of what is asked: `log_inputs`, for each model.

`full` keeps it. `hashed` puts a keyed hash in the place of every word, before the model sees it:
what is answered, logged and learned from is the same, and a bag-of-words model learns as well from
the hashes as from the words. `none` keeps nothing: the model answers, and is judged by
what it answered, but no signal can teach it. Both keep only a keyed hash of the names by which an
answer is found again, and of the people who speak of it.

Numbers, names of features and ids of options stay as they are; so does what people say of an
answer. Spaces and punctuation stay, and equal words have equal hashes: this hides words, and not
how often they occur.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

from online_learner.requests import LogRequest, PredictRequest
from online_learner.schema import Option

Mode: TypeAlias = Literal["full", "hashed", "none"]

# All but spaces and punctuation: letters with what combines with them, digits, and symbols.
_WORDS = re.compile(
    r"[^\s!-/:-@\[-`{-~\u00a1-\u00bf\u2000-\u200b\u200e-\u206f\u3000-\u303f\uff01-\uff0f]+"
)
_KNOWN_WORDS, _KNOWN_LENGTH = 1 << 16, 32
_LETTERS = 12


class Inputs:
    """What one model sees of its inputs, and what the log keeps of them.

    Parameters
    ----------
    hashed
        Returns the 8 bytes that stand for a text; see `Keyring.pseudonym`. Not needed for `full`.
    """

    def __init__(self, mode: Mode = "full", hashed: Callable[[bytes], bytes] = bytes) -> None:
        self.mode = mode
        self._bytes = hashed
        self._word = functools.lru_cache(_KNOWN_WORDS)(self._hash)

    def seen(self, value: Any) -> Any:
        """Return features as the model sees them, in a new object where that is not as sent."""
        return self._hashed(value) if self.mode == "hashed" else value

    def seen_options(self, options: list[Option]) -> list[Option]:
        """Return options with their features as the model sees them."""
        if self.mode != "hashed":
            return options
        return [
            option.model_copy(update={"features": self.seen(option.features)}) for option in options
        ]

    def kept(
        self,
        request: PredictRequest | LogRequest,
        features: dict[str, Any],
        options: Sequence[Option],
    ) -> dict[str, Any]:
        """Return the fields of a record that say what was asked, and by what names it is found.

        Parameters
        ----------
        features, options
            As the model has seen them.
        """
        parameters = getattr(request, "parameters", {})
        found: dict[str, Any] = {"features": features, "options": list(options)}
        if self.mode == "none":
            bare = [Option(id=option.id) for option in options]
            found = {"inputs": "none", "features": {}, "options": bare}
        elif self.mode == "hashed":
            shown = {"parameters": self.seen(parameters), "tags": self.seen(request.tags)}
            found |= {"inputs": "hashed"} | shown
        else:
            found |= {"parameters": parameters, "tags": request.tags}
        return found | {
            "session_id": self.name(request.session_id),
            "user_id": self.name(request.user_id),
            "external_id": self.name(request.external_id),
        }

    def name(self, name: str | None) -> str | None:
        """Return a name of an answer, or of a person, as the log keeps it."""
        return name if name is None or self.mode == "full" else self._hash(name)

    def source(self, source: str) -> str:
        """Return who speaks, as the log keeps it: people by a hash of their id.

        It is that of `user_id`, so that what they say with a key and without counts as theirs.
        """
        kind, _, name = source.partition(":")
        return f"{kind}:{self.name(name)}" if kind == "human" else source

    def _hashed(self, value: Any) -> Any:
        if isinstance(value, str):
            return _WORDS.sub(self._stand_in, value)
        if isinstance(value, dict):
            return {key: self._hashed(part) for key, part in value.items()}
        return [self._hashed(part) for part in value] if isinstance(value, list) else value

    def _stand_in(self, found: re.Match[str]) -> str:
        word = unicodedata.normalize("NFC", found[0]).casefold()
        return self._word(word) if len(word) <= _KNOWN_LENGTH else self._hash(word)

    def _hash(self, text: str) -> str:
        """Return letters only: a tokenizer that parts letters from digits leaves them whole."""
        number = int.from_bytes(self._bytes(text.encode()), "big")
        letters = []
        for _ in range(_LETTERS):
            number, letter = divmod(number, 26)
            letters.append(chr(97 + letter))
        return "".join(letters)


FULL = Inputs()
