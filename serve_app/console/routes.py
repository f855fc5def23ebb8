"""The routes of the console: the page, its panels, its files, and what differs between versions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeAlias

from fastapi import Depends, FastAPI, Request, Response

from online_learner import explain
from online_learner.auth import Credential
from online_learner.errors import NotFound, StateError, Unavailable
from online_learner.explain.versus import versus
from online_learner.schema import Prediction
from online_learner.stages import Stages
from serve_app.access import allowed, needs
from serve_app.console import assets, door
from serve_app.console.answers import question
from serve_app.console.page import render, reply
from serve_app.console.panels import draw
from serve_app.console.reports import Reports
from serve_app.console.scene import PANELS, Scene
from serve_app.service import Service

Reader = Annotated[Credential, allowed("read")]


def _room(request: Request, model: str) -> Stages:
    service: Service = request.app.state.service
    return service.room(model)


Room = Annotated[Stages, Depends(_room)]


Comparer: TypeAlias = Callable[[Stages, int, int], Awaitable[dict[str, Any]]]


def add_console(app: FastAPI) -> None:
    """Add the routes."""
    reports, comparing = Reports(), asyncio.Lock()

    async def compare(room: Stages, first: int, second: int) -> dict[str, Any]:
        """Compare two versions, one pair at a time: both are in memory, next to what answers."""
        async with comparing:
            return await versus(room.registry, room.learner, first, second)

    _page(app, reports)
    _parts(app, reports, compare)
    app.get("/static/{name}", response_class=Response)(assets.asset)
    app.post("/login", status_code=303, response_class=Response)(door.log_in)
    app.post("/logout", status_code=303, response_class=Response)(door.log_out)

    @app.get("/v1/models/{model}/versions/{first}/diff/{second}")
    async def diff(_: Reader, room: Room, first: int, second: int) -> dict[str, Any]:
        """Tell what differs between two versions: what they learned, what was decided, weights."""
        return await compare(room, first, second)


def _page(app: FastAPI, reports: Reports) -> None:
    @app.get("/", response_class=Response)
    @needs("nothing")
    async def page(request: Request) -> Response:
        """Show the console, or where nobody is known the form that asks for a key."""
        found, asked = door.visitor(request), request.query_params
        if found is None:
            return reply(render("login", wrong="wrong" in asked))
        who, csrf_token = found
        service: Service = request.app.state.service
        rooms = {
            name: service.rooms[name] for name in service.settings.models if name in service.rooms
        }
        shown = {"who": who, "csrf_token": csrf_token, "models": list(rooms), "model": None}
        if "read" not in who.scopes or not rooms:
            return reply(render("bare", **shown))
        model = asked.get("model") or next(iter(rooms))
        room = rooms.get(model) or next(iter(rooms.values()))
        scene = Scene(service, room, who, reports)
        return await _whole(scene, shown | {"unknown": model not in rooms})


async def _whole(scene: Scene, shown: dict[str, Any]) -> Response:
    try:
        panels, down = await draw(scene, PANELS), ""
    except (Unavailable, StateError) as error:
        panels, down = {}, str(error)
    return reply(render("page", **shown | {"model": scene.model, "panels": panels, "down": down}))


def _parts(app: FastAPI, reports: Reports, compare: Comparer) -> None:
    @app.get("/console/{model}/{panels}", response_class=Response)
    async def parts(who: Reader, request: Request, room: Room, panels: str) -> Response:
        """Draw panels of a model anew; several names stand with commas between them."""
        names = panels.split(",")
        if not set(names) <= set(PANELS):
            raise NotFound(f"there is no such panel, but {', '.join(PANELS)}")
        drawn = await draw(Scene(request.app.state.service, room, who, reports), names)
        return reply("\n".join(drawn.values()))

    @app.get("/console/{model}/answers/{prediction_id}", response_class=Response)
    async def answer(who: Reader, request: Request, room: Room, prediction_id: str) -> Response:
        """Show one answer, what was said of it, and every kind of feedback that it takes."""
        scene = Scene(request.app.state.service, room, who, reports)
        found, address = scene.service.open_id("prediction", prediction_id)
        story = await explain.answer(found.log, address, window_s=found.window_s)
        record = Prediction.model_validate(story["prediction"])
        asked = question(found, record, prediction_id)
        return reply(render("answer", scene=scene, story=story, record=record, ask=asked))

    @app.get("/console/{model}/diff/{first}/{second}", response_class=Response)
    async def diff_part(who: Reader, room: Room, first: int, second: int) -> Response:
        """Show what differs between two versions."""
        return reply(render("diff", diff=await compare(room, first, second)))
