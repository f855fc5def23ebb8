"""Hostile JSON, at a place of every kind in the body of every route: all of it is refused.

Each place is first given something that it takes, so that a refusal is one of what is hostile. What
is sent in the one item of a batch has its status in the reply to that item.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2

from benchmarks import report
from benchmarks.hostile import site
from benchmarks.report import Bar
from benchmarks.sections import Found

SLOW_S = 0.5  # that a body may take to arrive, in this run
_DEPTH, _DIGITS, _ITEMS = 100_000, 5_000, 100_000

# What stands at the place, as JSON; `@` stands for what is there otherwise.
VALUES: dict[str, str] = {
    "NaN": "NaN",
    "Infinity": "Infinity",
    "-Infinity": "-Infinity",
    "1e308": "1e308",
    "-1e308": "-1e308",
    "1e309": "1e309",
    "5,000 digits": "9" * _DIGITS,
    "309 digits": "9" * 309,
    '"nan"': '"nan"',
    "wrong type": '{"a": [1]}',
    "deep": "[" * _DEPTH + "]" * _DEPTH,
    "deep objects": '{"a":' * _DEPTH + "1" + "}" * _DEPTH,
    "100,000 items": "[" + "0," * _ITEMS + "0]",
    "NUL": r'"a\u0000b"',
    "raw NUL": '"a\0b"',
    "half a pair": r'"\ud800"',
    "other half": r'"\udc00x"',
    "bad escape": r'"\x00"',
    "line break": '"a\nb"',
    "no quotes": "nan",
    "single quotes": "'a'",
    "hexadecimal": "0x10",
    "comment": "1 /* one */",
    "leading zero": "01",
}
# What is done to the whole body.
BODIES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda body: body[:-1],
    "twice": lambda body: body + body,
    "trailing": lambda body: body + b" x",
    "comma": lambda body: body[:-1] + b",}",
    "list": lambda body: b"[" + body + b"]",
    "text": lambda body: json.dumps(body.decode()).encode(),
    "blank": lambda body: b" " * len(body),
    "BOM": lambda body: b"\xef\xbb\xbf" + body,
    "UTF-16": lambda body: body.decode().encode("utf-16"),
    "bad UTF-8": lambda body: b'{"\xff": 1, ' + body[1:],
    "overlong UTF-8": lambda body: b'{"\xc0\x80": 1, ' + body[1:],
    "doubled key": lambda body: _doubled(body),  # noqa: PLW0108  # it stands below
    "NUL key": lambda body: rb'{"\u0000": 1, ' + body[1:],
    "half a pair as key": lambda body: rb'{"\ud800": 1, ' + body[1:],
    "unknown key": lambda body: b'{"a": 1, ' + body[1:],
    "100,000 keys": lambda body: b"{" + b"".join(b'"k%d":0,' % n for n in range(_ITEMS)) + body[1:],
    "2 MiB": lambda body: b" " * (2 << 20) + body,
}
_JSON = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the body of a route.

    Parameters
    ----------
    path, body
        With `@` for the place, in JSON, and `<...>` for ids.
    good
        What it takes, as JSON.
    takes
        Values that are nothing hostile there: a text may be a feature.
    """

    path: str
    body: str
    good: str
    takes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The route, and the place by its key."""
        *_, key, _ = self.body.partition("@")[0].split('"')
        kinds = re.findall('"kind": "(.*?)"', self.body)
        return " ".join([self.path.removeprefix("/v1/"), *kinds, f"`{key}`"])


def _said(kind: str, rest: str, good: str, *takes: str, of: str = "web") -> Place:
    body = f'{{"prediction_id": "<{of}>", "kind": "{kind}", {rest}}}'
    return Place("/v1/feedback", body, good, takes)


_ITEM = '{"prediction_id": "<web>", "kind": "rating", "value": @}'
_OPERATE = "/v1/models/web"
PLACES = [
    Place("/v1/models/web/predict", '{"features": {"x": @}}', "1", ('"nan"',)),
    Place("/v1/models/pages/predict", '{"features": {"x": [1, @]}, "options": [{"id": "a"}]}', "1"),
    Place("/v1/models/web/predict", '{"features": {}, "top_k": @}', "1"),
    Place("/v1/models/web/predict", '{"features": {}, "session_id": @}', '"s"', ('"nan"',)),
    Place("/v1/models/web/predict", '{"features": {}, "tags": {"a": @}}', '"b"', ('"nan"',)),
    Place(
        "/v1/models/pages/predict",
        '{"features": {}, "options": [{"id": "a", "features": {"x": @}}, {"id": "b"}]}',
        "1",
        ('"nan"',),
    ),
    Place("/v1/models/web/predict_batch", '{"instances": [{"features": {}, "top_k": @}]}', "1"),
    Place(
        "/v1/models/llm/log",
        '{"prompt": "p", "outputs": [{"id": "0", "text": "t"}], "latency_ms": @}',
        "1",
    ),
    Place(
        "/v1/models/llm/log",
        '{"outputs": [{"id": "0", "text": "t"}], "prompt": @}',
        '"p"',
        ('"nan"',),
    ),
    Place(
        "/v1/models/llm/log",
        '{"prompt": "p", "outputs": [{"id": "0", "text": "t", "logprobs": [@]}]}',
        "-1",
    ),
    Place(
        "/v1/models/llm/log",
        '{"prompt": "p", "outputs": [{"id": "0", "text": "t"}], "parameters": {"a": @}}',
        "1",
        ('"nan"', "wrong type", "100,000 items"),
    ),
    Place(
        "/v1/models/llm/log",
        '{"request": {"messages": [{"role": "user"}], "seed": @}, '
        '"response": {"choices": [{"message": {"content": "t"}}]}}',
        "1",
        ('"nan"', "wrong type", "100,000 items"),
    ),
    Place("/v1/models/web/log", '{"features": {"x": @}, "output": true}', "1", ('"nan"',)),
    Place("/v1/models/web/log", '{"features": {}, "output": @}', "true"),
    Place(
        "/v1/models/web/log",
        '{"features": {}, "output": true, "scores": {"true": @}}',
        "0.5",
    ),
    Place(
        "/v1/models/pages/log", '{"features": {}, "options": [{"id": "a"}], "output": [@]}', '"a"'
    ),
    Place("/v1/models/web/log_batch", '{"answers": [{"features": {}, "output": @}]}', "true"),
    Place("/v1/models/llm/score", '{"prompt": "p", "outputs": [@]}', '"t"', ('"nan"',)),
    _said("thumbs", '"value": @', "true"),
    _said("rating", '"value": @', "3"),
    _said("rating", '"value": 3, "scale": [1, @]', "5"),
    _said("correction", '"value": @', "true"),
    _said("selection", '"value": @', "true"),
    _said("preference", '"chosen": "a", "rejected": @', '"b"', of="pages"),
    _said("ranking", '"value": ["a", @]', '"b"', of="pages"),
    _said("category", '"value": @', '"helpful"'),
    _said("flag", '"rule": @', '"r"', '"nan"'),
    _said("implicit", '"event": "e", "value": @', "1"),
    _said("thumbs", '"value": true, "comment": @', '"c"', '"nan"'),
    _said("thumbs", '"value": true, "observed_at": @', '"2026-01-01T00:00:00Z"'),
    _said("thumbs", '"value": true, "interface": {"id": "i", "position": @}', "1"),
    Place(
        "/v1/feedback",
        '{"prediction_id": "<rent>", "kind": "correction", "value": @}',
        "1",
    ),
    Place(
        "/v1/feedback",
        '{"prediction_id": "<web>", "signals": [{"kind": "rating", "value": @}]}',
        "3",
    ),
    Place("/v1/feedback_batch", f'{{"items": [{_ITEM}]}}', "3"),
    Place(f"{_OPERATE}/promote", '{"dry_run": true, "version": @}', "1"),
    Place(f"{_OPERATE}/rollback", '{"dry_run": true, "version": @}', "0"),
    Place(f"{_OPERATE}/freeze", '{"dry_run": @}', "true"),
    Place(f"{_OPERATE}/thaw", '{"dry_run": @}', "true"),
    Place(
        f"{_OPERATE}/quarantine/release",
        '{"rolled_back": true, "dry_run": true, "reason": @}',
        '"r"',
        ('"nan"',),
    ),
    Place(
        f"{_OPERATE}/quarantine/<said>/release",
        '{"dry_run": true, "reason": @}',
        '"r"',
        ('"nan"',),
    ),
    Place(f"{_OPERATE}/queue/lease", '{"count": @}', "1"),
    Place(f"{_OPERATE}/queue/lease", '{"seconds": @}', "60"),
    Place(f"{_OPERATE}/queue/lease", '{"rater": @}', '"r"', ('"nan"',)),
    Place(f"{_OPERATE}/queue/lease", '{"prediction_ids": @}', "[]"),
    Place(f"{_OPERATE}/queue/skip", '{"prediction_ids": ["<web>"], "again": @}', "true"),
    Place(f"{_OPERATE}/gold", '{"features": {"x": @}, "value": true}', "1", ('"nan"',)),
    Place(f"{_OPERATE}/gold", '{"features": {}, "value": @}', "true"),
]


def section(full: bool) -> Found:
    """Return the table of statuses, and what was not refused."""
    with site.running(body_timeout_s=SLOW_S) as running, running.client() as http:
        ids = ids_of(http)
        rows, wrong, count = [], [], 0
        for place in PLACES:
            found = dict(asked(http, place, ids))
            count += len(found)
            rows.append([place.title, f"{control(http, place, ids)}", *_cells(found)])
            wrong += [
                f"{place.title}, {kind}: {status}"
                for kind, status in found.items()
                if not 400 <= status < 500
            ]
        late = slow(running.url, running.key, sorted({fill(place.path, ids) for place in PLACES}))
        wrong += [f"{path}, slow: {status}" for path, status in late.items() if status != 408]
        lives = http.get("/readyz").status_code
    head = ["route, and place", "fine", *(f"{status}" for status in _STATUSES), "other"]
    text = (
        f"{len(PLACES)} places, {len(VALUES)} hostile values, {len(BODIES)} hostile bodies, and "
        f"bodies that are compressed, or no JSON by their own word: {count} requests. In the "
        f"cells: how many got that status; *fine*: what a good value gets.\n\n"
        f"{report.table(head, rows)}\n\nA body that stops half-way, on {len(late)} routes: "
        f"{sorted(set(late.values()))} after {SLOW_S} s. Afterwards `/readyz`: {lives}."
    )
    if wrong:
        text += "\n\nNot refused: " + "; ".join(wrong[:50])
    return text, [Bar("hostile JSON: not refused with 4xx", len(wrong), 0, at_most=True)]


_STATUSES = (400, 413, 415, 422)


def _cells(found: Mapping[str, int]) -> Iterator[str]:
    statuses = list(found.values())
    for status in _STATUSES:
        yield f"{statuses.count(status)}"
    yield f"{sum(status not in _STATUSES for status in statuses)}"


def ids_of(http: httpx2.Client) -> dict[str, str]:
    """Return ids that lead somewhere."""
    found = {}
    options = {"options": [{"id": "a"}, {"id": "b"}]}
    for model, more in {"web": {}, "rent": {}, "pages": options}.items():
        reply = http.post(f"/v1/models/{model}/predict", json={"features": {"x": 1}, **more})
        found[model] = reply.raise_for_status().json()["prediction_id"]
    said = {"prediction_id": found["web"], "kind": "thumbs", "value": True}
    taken = http.post("/v1/feedback", json=said).raise_for_status()
    return found | {"said": taken.json()["feedback_id"]}


def control(http: httpx2.Client, place: Place, ids: Mapping[str, str]) -> int:
    """Return the status that something good gets."""
    body = fill(place.body, ids).replace("@", place.good)
    return _status(http.post(fill(place.path, ids), content=body, headers=_JSON))


def asked(http: httpx2.Client, place: Place, ids: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """Ask a route with everything hostile; yields the kind, and the status that it got."""
    path, body = fill(place.path, ids), fill(place.body, ids)
    good = body.replace("@", place.good).encode()

    def post(body: bytes, **headers: str) -> int:
        return _status(http.post(path, content=body, headers=_JSON | headers))

    for kind, value in VALUES.items():
        if kind not in place.takes:
            yield kind, post(body.replace("@", value).encode())
    for kind, change in BODIES.items():
        yield kind, post(change(good))
    yield "no JSON by its word", post(good, **{"content-type": "text/plain"})
    yield "compressed", post(gzip.compress(good), **{"content-encoding": "gzip"})


def fill(text: str, ids: Mapping[str, str]) -> str:
    """Return a path or a body with its ids."""
    for name, value in ids.items():
        text = text.replace(f"<{name}>", value)
    return text


def _status(reply: httpx2.Response) -> int:
    """Return the status of a reply, or that of the error in the place of its one item."""
    if reply.status_code >= 300:
        return reply.status_code
    body = reply.json()
    [item] = body.get("predictions") or body.get("results") or body.get("answers") or [{}]
    return int(item["status"]) if "code" in item else reply.status_code


def _doubled(body: bytes) -> bytes:
    """Return an object with its first key twice."""
    first = next(iter(json.loads(body)))
    return b'{"' + first.encode() + b'": null, ' + body[1:]


def slow(url: str, key: str, paths: Sequence[str]) -> dict[str, int]:
    """Send each route half a body, and wait; returns the statuses."""
    with ThreadPoolExecutor(len(paths)) as pool:
        return dict(zip(paths, pool.map(lambda path: _half(url, key, path), paths), strict=True))


def _half(url: str, key: str, path: str) -> int:
    place = urlsplit(url)
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {place.netloc}\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {key}\r\ncontent-length: 100\r\n\r\n"
    )
    with socket.create_connection((str(place.hostname), place.port or 80), timeout=10) as client:
        client.sendall(head.encode() + b'{"features": ')
        reply = b""
        while part := client.recv(4096):  # until the other side hangs up
            reply += part
    return int(reply.split(b" ", 2)[1])
