"""One switch for all corrections: on by evidence, off by evidence, or by an operator's word."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from policies.contest import Contest
from policies.switch import Switch, mode_of


@pytest.mark.parametrize(("value", "mode"), [("auto", "auto"), (True, "on"), (False, "off")])
def test_what_yaml_makes_of_a_bare_word_is_understood(value: Any, mode: str) -> None:
    """It reads `on` and `off` as true and false."""
    assert mode_of(value) == Switch(value).mode == Contest(value).mode == mode


@pytest.mark.parametrize("value", ["ON", None, 1, ["on"]], ids=str)
def test_what_is_no_mode_is_refused(value: Any) -> None:
    """With the name of the argument, and what is taken."""
    with pytest.raises(ValueError, match="apply is auto, on or off, not"):
        mode_of(value, "apply")


@pytest.mark.parametrize("alpha", [0.0, 1.0, True, "0.05", float("nan")], ids=str)
def test_alpha_is_a_probability(alpha: Any) -> None:
    """Neither certain nor impossible."""
    with pytest.raises(ValueError, match="alpha is a probability between 0 and 1"):
        Switch(alpha=alpha)


def test_a_good_past_is_no_credit() -> None:
    """However long a correction was better: once it loses, it is off as soon."""
    found = {}
    for good in (200, 5000):
        switch = Switch()
        for _ in range(good):
            switch.take(0.5, 0.7, 0.2)
        assert switch.on
        found[good] = 0
        while switch.on:
            switch.take(0.7, 0.5, -0.2)
            found[good] += 1
    assert found[200] == found[5000] < 150


def test_an_operators_word_goes_before_the_evidence() -> None:
    """The evidence is told beside it."""
    switch = Switch("off")
    for _ in range(100):
        switch.take(0.5, 1.0, 0.5)
    report = switch.report("")
    assert (report["mode"], report["on"], switch.switches) == ("off", False, 1)


def test_a_restart_changes_nothing_on_either_side() -> None:
    """State goes through text while it is off, and while it is on; the rest is the same."""
    rng = random.Random(0)
    gains = [rng.uniform(-0.5, 1.0) for _ in range(300)] + [-0.3] * 60
    whole, parts = Switch(), Switch()
    for gain in gains:
        whole.take(0.5, 0.5 + gain, gain)
        parts.take(0.5, 0.5 + gain, gain)
        packed, parts = json.dumps(parts.pack(), allow_nan=False), Switch()
        parts.restore(json.loads(packed))
        assert parts.report("") == whole.report("")
    assert whole.switches == 2
