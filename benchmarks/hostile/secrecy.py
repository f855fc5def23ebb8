"""Ten thousand secrets in every place of requests, good and bad: none comes back, none is logged.

They stand in headers, cookies, paths, queries, bodies and their keys; they meet every kind of
error: no key, a wrong one, no such route, no JSON, a model's own defect, a learner's, a full limit,
a store that is away. Afterwards all error replies are searched, with their headers,
and all that the service wrote; with `--full` the whole system as well, with Ray's logs and metrics.
What was planted in a record has to be found in the store: else it shows nothing that nothing is
found elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2

from benchmarks import report
from benchmarks.hostile import bomb, site
from benchmarks.hostile.plants import MARK, Plants
from benchmarks.hostile.site import Site
from benchmarks.report import Bar
from benchmarks.sections import Found
from benchmarks.stack import free_port
from online_learner.settings import Settings
from online_learner.store import open_store
from serve_app import local

PLANTS, PLANTS_FULL = 2_000, 10_000
SEED = 9
METRICS_S = 12.0  # Ray exports what it counts every ten seconds
MODELS: dict[str, dict[str, Any]] = {
    **site.MODELS,
    "bomb": {
        "task": "classification",
        "labels": [False, True],
        "learner": "benchmarks.hostile.bomb:learner",
        **site.ALWAYS,
    },
    "strict": {
        **site.MODELS["web"],
        "public_feedback": False,
        "limits": {"per_key": {"rate": 1e-6, "burst": 1}},
        "rules": [{"rule": "personal_data", "kinds": ["email", "card"], "severity": "block"}],
    },
}
_WHO = {"session_id": MARK, "user_id": MARK, "external_id": MARK, "tags": {f"tag{MARK}": MARK}}
_SAID = {
    "source": {"type": "human", "id": MARK},
    "model_version": MARK,
    "reasons": [MARK],
    "interface": {"id": MARK, "variant": MARK},
    "comment": MARK,
    "tags": {MARK: MARK},
}
_LOGGED = {
    "prompt": MARK,
    "outputs": [{"id": "0", "text": MARK}, {"id": MARK, "json": {MARK: MARK}}],
    "parameters": {MARK: MARK},
    **_WHO,
}
_CHAT = {
    "request": {"messages": [{"role": "user", "content": MARK}], "user": MARK},
    "response": {"id": MARK, "choices": [{"message": {"content": MARK}}]},
}
_FEATURES = {"text": MARK, MARK: MARK, f"number{MARK}": 1.0}
# Bodies that are right but for what is planted in them, by path; `<web>` and the like are ids.
BODIES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/models/pages/predict", {"features": _FEATURES, "options": [{"id": MARK}], **_WHO}),
    ("/v1/models/web/predict", {"features": {f"number{MARK}": 1.0}, **_WHO}),
    ("/v1/models/web/predict", {"features": {MARK: 1e99}, **_WHO}),
    ("/v1/models/bomb/predict", {"features": {bomb.PREDICTING: MARK, MARK: 1.0}}),
    ("/v1/models/web/predict_batch", {"instances": [{"features": {MARK: {}}}, MARK, {MARK: 1}]}),
    ("/v1/models/llm/log", _LOGGED),
    ("/v1/models/llm/log", _CHAT),
    ("/v1/models/llm/score", {"prompt": MARK, "outputs": [MARK, {"id": MARK, "text": MARK}]}),
    ("/v1/feedback", {"prediction_id": MARK, "kind": "thumbs", "value": True}),
    ("/v1/feedback", {"prediction_id": "<web>", "kind": MARK, "value": MARK}),
    ("/v1/feedback", {"prediction_id": "<web>", "kind": "thumbs", "value": False, **_SAID}),
    ("/v1/feedback", {"prediction_id": "<web>", "kind": "correction", "value": MARK}),
    ("/v1/feedback", {"prediction_id": "<web>", "kind": "selection", "value": MARK}),
    ("/v1/feedback", {"prediction_id": "<web>", "kind": "category", "value": MARK}),
    ("/v1/feedback", {"prediction_id": "<pages>", "kind": "ranking", "value": [MARK, MARK]}),
    (
        "/v1/feedback",
        {"prediction_id": "<pages>", "kind": "preference", "chosen": MARK, "rejected": MARK},
    ),
    ("/v1/feedback", {"prediction_id": "<pages>", "kind": "correction", "value": {MARK: MARK}}),
    ("/v1/feedback", {"prediction_id": "<web>", "kind": "rating", "value": 9, "scale": [1, 5]}),
    ("/v1/feedback", {"prediction_id": "<web>", "kind": "flag", "rule": MARK, "detail": MARK}),
    ("/v1/feedback", {"prediction_id": "<web>", "kind": "implicit", "event": MARK}),
    ("/v1/feedback", {"prediction_id": "<web>", "signals": [{"kind": MARK}, {"kind": "thumbs"}]}),
    ("/v1/feedback", {"model": "web", "session_id": MARK, "kind": "thumbs", "value": True}),
    ("/v1/feedback", {"model": MARK, "external_id": MARK, "kind": "thumbs", "value": True}),
    (
        "/v1/feedback",
        {"prediction_id": "<bomb>", "kind": "correction", "value": True, "comment": MARK},
    ),
    (
        "/v1/feedback",
        {"prediction_id": "<strict>", "kind": "thumbs", "value": True, "comment": MARK},
    ),
    # One signal is taken there, by its rules, and no other.
    *[
        (
            "/v1/feedback",
            {"prediction_id": "<strict>", "user_id": MARK, "kind": "thumbs", "value": v},
        )
        for v in (True, False, True)
    ],
    ("/v1/feedback_batch", {"items": [{"prediction_id": MARK}, {MARK: MARK}, MARK]}),
    ("/v1/models/web/promote", {"version": MARK}),
    ("/v1/models/web/rollback", {"version": 7, MARK: MARK}),
    ("/v1/models/web/freeze", {"dry_run": MARK}),
    ("/v1/models/web/quarantine/release", {"feedback_ids": [MARK], "reason": MARK}),
]
_READS = (
    "/v1/models/@",
    "/v1/models/@/versions?count=@",
    "/v1/models/web/verdicts?after=@",
    "/v1/models/web/feedback?kind=@&status=@&key=@",
    "/v1/models/web/queue?lane=@",
    "/v1/predictions/@",
    "/v1/feedback/@?token=@",
    "/v1/@/@",
    "/@?password=@",
    "/openapi.json/@",
)


@dataclass(slots=True)
class Asked:
    """All that was asked, and the errors that were replied.

    Parameters
    ----------
    errors
        Each reply of 400 or more, with its headers, as text; and the errors in batches.
    """

    plants: Plants
    ids: dict[str, str]
    statuses: Counter[int] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)

    def note(self, reply: httpx2.Response) -> None:
        """Take a reply to heart."""
        self.statuses[reply.status_code] += 1
        if reply.status_code >= 400:
            # Serve gives the id of a request back to whoever sent it, in a header of its own.
            headers = [item for item in reply.headers.multi_items() if item[0] != "x-request-id"]
            self.errors.append(f"{headers} {reply.text}")
        elif "batch" in str(reply.request.url):
            body = reply.json()
            items = body.get("predictions") or body.get("results")
            self.errors += [json.dumps(item) for item in items if "code" in item]


# --- what is asked ----------------------------------------------------------------------------


def ask_all(http: httpx2.Client, asked: Asked, count: int) -> None:
    """Ask everything, over and over, until so many are planted."""
    rng = random.Random(SEED)
    for path, template in itertools.cycle(BODIES):
        place = path.replace("/v1/", "")
        for change in CHANGES.values():
            body = asked.plants.fill(template, place)
            text = json.dumps(body)
            for name, value in asked.ids.items():
                text = text.replace(f"<{name}>", value)
            asked.note(http.post(path, content=change(text, asked.plants), headers=_TYPE))
        text = json.dumps(asked.plants.fill(template, place))
        asked.note(http.post(path, content=text, headers=_headers(asked.plants, rng)))
        asked.note(http.get(_filled(rng.choice(_READS), asked.plants)))
        asked.note(http.request("PUT", _filled("/v1/models/@/predict?a=@", asked.plants)))
        if len(asked.plants) >= count:
            return


_TYPE = {"content-type": "application/json"}
# What is done to a body that is JSON.
CHANGES: dict[str, Callable[[str, Plants], str]] = {
    "as it is": lambda text, _: text,
    "an unknown key": lambda text, plants: f'{{"{plants.new("an unknown key")}": 1, {text[1:]}',
    "no end": lambda text, _: text[:-1],
    "more behind": lambda text, plants: f"{text} {plants.new('behind the end')}",
    "a doubled key": lambda text, plants: _doubled(text, plants.new("a doubled key")),
    "a NUL": lambda text, plants: f'{{"{plants.new("beside NUL")}\\u0000": 1, {text[1:]}',
    "too large": lambda text, _: text + " " * (2 << 20),
}


def _doubled(text: str, key: str) -> str:
    return f'{{"{key}": 1, "{key}": 2, {text[1:]}'


def _headers(plants: Plants, rng: random.Random) -> dict[str, str]:
    """Return headers that are wrong in one way or another."""
    names = ["user-agent", "referer", "x-forwarded-for", "x-csrf-token", "x-request-id", "accept"]
    found = {name: plants.new(f"header {name}") for name in names}
    wrong = {
        "authorization": f"Bearer {plants.new('header authorization')}",
        "cookie": f"ol_session={quote(plants.new('cookie'))}; {quote(plants.new('cookie'))}=1",
        "content-type": f"text/{quote(plants.new('header content-type'))}",
        "content-encoding": quote(plants.new("header content-encoding")),
        "idempotency-key": plants.new("header idempotency-key") * 20,
        "origin": f"https://{quote(plants.new('header origin'))}",
    }
    some = rng.sample(sorted(wrong), k=rng.randint(1, 3))
    return _TYPE | found | {name: wrong[name] for name in some}


def _filled(path: str, plants: Plants) -> str:
    parts = path.split(MARK)
    return "".join(part + quote(plants.new(path)) for part in parts[:-1]) + parts[-1]


# --- where is looked --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Searched:
    """What was asked, and what was searched.

    Parameters
    ----------
    kept
        Plants in the store, where they belong.
    written
        By where it was written: all of it, as text.
    """

    asked: Asked
    kept: int
    written: dict[str, str]

    def leaks(self) -> dict[str, dict[str, str]]:
        """Return, by where, the plants that were found, and where they had been planted."""
        texts = {"error replies": "\n".join(self.asked.errors), **self.written}
        return {where: self.asked.plants.found_in(text) for where, text in texts.items()}


def section(full: bool) -> Found:
    """Return how many were planted, and where any was found."""
    with site.running(MODELS) as running:
        runs = {"one process": examine(running, PLANTS_FULL if full else PLANTS)}
    if full:
        runs["the whole system"] = examine_whole(PLANTS_FULL)
    texts, found = [], list[Bar]()
    for title, searched in runs.items():
        text, bars = _told(title, searched, PLANTS_FULL if full else PLANTS)
        texts.append(text)
        found += bars
    return "\n\n".join(texts), found


def _told(title: str, searched: Searched, wanted: int) -> Found:
    asked, leaks = searched.asked, searched.leaks()
    rows = [
        ["planted", f"{len(asked.plants)}"],
        ["requests", f"{asked.statuses.total()}"],
        ["found in the store, where records are", f"{searched.kept}"],
        ["error replies searched", f"{len(asked.errors)}"],
        *(
            [f"characters of {where} searched", f"{len(t)}"]
            for where, t in searched.written.items()
        ),
        *([f"found in {where}", f"{len(found)}"] for where, found in leaks.items()),
    ]
    statuses = ", ".join(f"{status} {n}x" for status, n in sorted(asked.statuses.items()))
    text = f"{report.table([title, ''], rows)}\n\nStatuses: {statuses}."
    places = sorted({place for found in leaks.values() for place in found.values()})
    if places:
        text += "\n\nThey had been planted in: " + "; ".join(places[:50])
    return text, [
        Bar(f"{title}: secrets planted", len(asked.plants), wanted),
        Bar(f"{title}: of these, in the store (the control)", searched.kept, 50),
        Bar(f"{title}: found elsewhere", len(places), 0, at_most=True),
    ]


def examine(running: Site, count: int) -> Searched:
    """Plant with a key, without one, and with the store away."""
    plants = Plants(SEED)
    with running.client() as http, httpx2.Client(base_url=running.url, timeout=20.0) as keyless:
        asked = Asked(plants, _ids(http, plants))
        ask_all(http, asked, count * 6 // 10)
        ask_all(keyless, asked, count * 7 // 10)
        _settled(http)
        kept = len(plants.found_in(asyncio.run(_stored(running.server.url))))
        running.server.stop()
        ask_all(http, asked, count)
    return Searched(asked, kept, {"logs": running.log.read_text()})


def examine_whole(count: int) -> Searched:
    """Plant in the whole system, on Ray; its logs and metrics are searched."""
    plants = Plants(SEED + 1)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        settings = Settings(data_dir=Path(folder), models=MODELS)
        with local.running(settings, port=free_port()) as endpoint:
            headers = {"authorization": f"Bearer {endpoint.key}"}
            with httpx2.Client(base_url=endpoint.url, headers=headers, timeout=20.0) as http:
                asked = Asked(plants, _ids(http, plants))
                ask_all(http, asked, count)
                _settled(http)
            kept = len(plants.found_in(asyncio.run(_stored(endpoint.store))))
            time.sleep(METRICS_S)
            written = {"logs": _ray_logs(Path(folder)), "metrics": _ray_metrics()}
    return Searched(asked, kept, written)


def _ray_logs(data_dir: Path) -> str:
    """Return all that Ray has written, and our own log beside it."""
    import ray

    session = Path(ray._private.worker._global_node.get_session_dir_path())
    files = [*(session / "logs").rglob("*"), *data_dir.glob("*.log")]
    return "\n".join(file.read_text(errors="replace") for file in files if file.is_file())


def _ray_metrics() -> str:
    """Return what Ray's nodes export, and HAProxy of them."""
    import ray

    found = [
        f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}" for node in ray.nodes()
    ]
    found += [f"http://127.0.0.1:{os.environ['RAY_SERVE_HAPROXY_METRICS_PORT']}"]
    pages = []
    for url in found:
        with contextlib.suppress(httpx2.TransportError):
            pages.append(httpx2.get(f"{url}/metrics", timeout=5.0).text)
    return "\n".join(pages)


def _ids(http: httpx2.Client, plants: Plants) -> dict[str, str]:
    """Return ids of answers, one of each model that is asked about."""
    found = {}
    options = {"options": [{"id": "a"}, {"id": "b"}]}
    for model in ("web", "pages", "bomb", "strict"):
        features = {bomb.LEARNING: 1.0, plants.new("a feature's name"): 1.0}
        body = {"features": features, **(options if model == "pages" else {})}
        reply = http.post(f"/v1/models/{model}/predict", json=body).raise_for_status()
        found[model] = reply.json()["prediction_id"]
    return found


def _settled(http: httpx2.Client) -> None:
    """Wait until the learner has met the signal that spoils its batch."""
    deadline = time.monotonic() + 20
    while not http.get("/v1/models/bomb/quarantine").json()["quarantine"]:
        if time.monotonic() > deadline:
            raise TimeoutError("the learner has not set anything aside")
        time.sleep(0.05)


async def _stored(url: str) -> str:
    """Return all predictions and signals in the store, as text."""
    async with await open_store(url) as store:
        keys = [key.decode() for key in await store.call("KEYS", "ol:*")]
        streams = [key for key in keys if key.endswith((":predictions", ":feedback"))]
        return "\n".join([str(await store.range(key)) for key in streams])
