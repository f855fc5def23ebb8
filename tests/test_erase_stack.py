"""A person is erased from a running service: it answers and learns meanwhile, and loses nothing."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx2
from the_stack import Stack

from online_learner.store import Store
from online_learner.store.keys import Keys

PLANTED = "Zanzibarquux"
MODEL = "triage"


async def ask(http: httpx2.AsyncClient, user: str, words: str) -> str:
    """Have somebody ask, and say what is right; returns the prediction id."""
    body = {"features": {"text": f"my {words} is broken"}, "user_id": user}
    answer = (await http.post(f"/v1/models/{MODEL}/predict", json=body)).raise_for_status().json()
    said = {"prediction_id": answer["prediction_id"], "user_id": user}
    said |= {"kind": "correction", "value": "bug"}
    (await http.post("/v1/feedback", json=said)).raise_for_status()
    return str(answer["prediction_id"])


async def erase(stack: Stack, *arguments: str) -> tuple[int, Any]:
    """Run the command as an operator does; returns its exit status, and what it printed."""
    command = [str(Path(sys.executable).with_name("online-learner")), "erase", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command,
        "--config",
        str(stack.data_dir.parent / "loop.yaml"),
        "--json",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    assert out, errors.decode()
    return process.returncode or 0, json.loads(out)


async def test_a_running_service_forgets_a_person_and_goes_on(
    stack: Stack, stack_http: httpx2.AsyncClient, raw: Store
) -> None:
    """Nothing of what others send is lost, and the weights are done before the command ends."""
    for n in range(20):
        await ask(stack_http, f"ada-{PLANTED}" if n % 2 else "eve", PLANTED if n % 2 else "invoice")
    going, given = True, list[str]()

    async def write(name: str) -> None:
        while going:
            given.append(await ask(stack_http, name, "printer"))

    writers = [asyncio.create_task(write(f"writer-{n}")) for n in range(4)]
    try:
        status, done = await erase(
            stack, "--user", f"ada-{PLANTED}", "--model", MODEL, "--wait-s", "120"
        )
    finally:
        going = False
        await asyncio.gather(*writers)
    assert status == 0
    assert done[MODEL]["erased"]["feedback"] == 10
    assert done[MODEL]["unlearned"] == "done"
    assert done[MODEL]["state_before"] != done[MODEL]["state_after"] != ""
    for one in given:
        found = (await stack_http.get(f"/v1/predictions/{one}")).raise_for_status().json()
        assert len(found["feedback"]) == 1
    status, found = await erase(stack, "--user", f"ada-{PLANTED}", "--model", MODEL, "--check")
    assert (status, found) == (0, {"found": {}})
    entries = [fields for _, fields in await raw.range(Keys(MODEL).feedback)]
    assert PLANTED not in repr(entries)
