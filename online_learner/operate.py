"""What operators do by hand: promote, roll back, freeze, thaw. Each leaves a verdict."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from online_learner.errors import Invalid, StateError, Unavailable
from online_learner.promote import commit_move
from online_learner.registry import Registry
from online_learner.schema import Aliases, Move, Verdict


async def operate(
    registry: Registry,
    action: str,
    *,
    by: str,
    now: float,
    version: int | None = None,
    dry_run: bool = False,
) -> tuple[Aliases, Verdict]:
    """Promote, roll back, freeze or thaw by hand; recorded as such.

    Parameters
    ----------
    action
        `promote` (needs `version`), `rollback`, `freeze` or `thaw`.
    by
        Who did it, for the record.
    dry_run
        Tell what would be done, and do nothing.

    Raises
    ------
    Invalid
        There is nothing to promote, nothing to roll back to, or it cannot be loaded.
    Conflict
        The aliases moved meanwhile.
    """
    before = await registry.aliases()
    if before is None:
        raise Unavailable(f"'{registry.model}' has no weights yet", code="not_ready")
    move = await _OPERATIONS[action](registry, before, version)
    assert move.verdict is not None  # operators always leave a record
    verdict = move.verdict.model_copy(update={"by": by})
    if dry_run:
        return move.aliases, verdict
    after = await commit_move(registry, before, replace(move, verdict=verdict), now=now)
    return after, verdict.model_copy(update={"epoch": after.epoch, "at": now})


async def _promote(registry: Registry, before: Aliases, version: int | None) -> Move:
    if version is None:
        raise Invalid.at("/version", "say which version to promote")
    await _check_kept(registry, version)
    if version == before.champion and not before.following:
        raise Invalid.at("/version", f"version {version} is the champion already")
    stood = (before.reference, before.previous)
    after = before.model_copy(
        update={
            "champion": version,
            "previous": next((n for n in stood if n != version), None),
            "following": False,
            "pinned": False,
            "anchor": None,
            "challengers": tuple(n for n in before.challengers if n != version),
            "generation": before.generation + 1,
            "trusted": True,
            "doubt": None,
        }
    )
    sentence = f"Version {version} answers from now on, promoted by hand."
    verdict = Verdict(
        action="promote", by="", sentence=sentence, version=version, reference=before.reference
    )
    return Move(after, verdict, statuses={version: "blessed"})


async def _rollback(registry: Registry, before: Aliases, version: int | None) -> Move:
    target = version if version is not None else before.previous
    if before.following and version is None:
        target = before.anchor
    if target is None:
        raise Invalid.at("/version", "nothing was promoted yet, so there is nothing to go back to")
    await _check_kept(registry, target)
    after = before.pulled_to(target).model_copy(update={"frozen": True})
    sentence = (
        f"Rolled back to version {target} by hand; the learner starts anew from it. Nothing is "
        "promoted until `thaw`."
    )
    verdict = Verdict(
        action="rollback", by="", sentence=sentence, version=target, reference=before.reference
    )
    return Move(after, verdict, reset_to=target)  # challengers are kept: one may go forward again


async def _check_kept(registry: Registry, version: int) -> None:
    """Raise `Invalid` where a version cannot be loaded, and `NotFound` where it never was."""
    try:
        if (await registry.version(version)).status == "rejected":
            raise Invalid.at("/version", f"version {version} was rejected; its weights are gone")
        await registry.check_whole(version)
    except StateError as error:
        raise Invalid.at("/version", str(error)) from error


async def _freeze(registry: Registry, before: Aliases, version: int | None) -> Move:
    after = before.model_copy(update={"frozen": True, "pinned": before.following})
    sentence = "Frozen by hand: what answers now goes on answering."
    verdict = Verdict(action="freeze", by="", sentence=sentence, version=before.champion)
    return Move(after, verdict, pin=before.following and not before.pinned)


async def _thaw(registry: Registry, before: Aliases, version: int | None) -> Move:
    after = before.model_copy(update={"frozen": False, "pinned": False})
    verdict = Verdict(action="thaw", by="", sentence="Thawed by hand.", version=before.champion)
    return Move(after, verdict)


_Operation = Callable[[Registry, Aliases, int | None], Awaitable[Move]]
_OPERATIONS: Mapping[str, _Operation] = {
    "promote": _promote,
    "rollback": _rollback,
    "freeze": _freeze,
    "thaw": _thaw,
}
