"""Guards that act at once: they need neither labels nor statistics, and read every audit.

Each role is watched for what it fails on, for one label in place of many, and for its time; a
champion on the leash also for a sudden loss of agreement with its anchor. A guard finds what is
plainly broken, and bounds no error: whether weights are better is for the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from online_learner.schema import Alarm, Aliases, Audit, Label, Output, Shadow, label_key

WINDOW = 100  # audits
RATE = 2.0 / (WINDOW + 1)  # at which the past fades: an effective window of (2 - rate) / rate
FAST, SLOW = 2.0 / 51, 2.0 / 1001  # of agreement: windows of 50 and 1000

FEWEST_FAILURES = 3
FEWEST_TIMED = 20
FEWEST_COMPARED = 200
VARIED = 0.9  # the largest share of one label at which a reference does not count as collapsed
NEAR = 0.1  # of the anchor's mean magnitude, within which two numbers agree
OUTLIER = 10.0  # times the mean, at which a time is cut: one pause is not slowness
LARGEST = 1e6

Numbers: TypeAlias = dict[str, float | int | str | None]


class Limits(Protocol):
    """Where guards fire; None or 0 switches one off. See `settings.GuardsSpec`."""

    @property
    def latency_ms(self) -> float | None:
        """The longest mean time to answer."""

    @property
    def failures(self) -> float:
        """The largest share of questions to fail on."""

    @property
    def collapse(self) -> float:
        """The share of one label at which a classifier counts as collapsed."""

    @property
    def jump(self) -> float:
        """The loss of agreement with the anchor, as a share of the answers."""


@dataclass(slots=True)
class Mean:
    """A mean in which the past fades: a plain one at first, then exponentially weighted.

    m += max(1 / n, rate) (x - m).
    """

    rate: float
    n: int = 0
    value: float = 0.0

    def add(self, x: float) -> None:
        """Add a number."""
        self.n += 1
        self.value += max(1.0 / self.n, self.rate) * (x - self.value)

    def pack(self) -> list[Any]:
        """Return the state as plain JSON, less the rate."""
        return [self.n, self.value]


@dataclass(slots=True)
class Shares:
    """Which share of the answers each label has, in an exponentially weighted window.

    In place of all others fading, the newest weighs more: by 1 / (1 - rate) each time.
    """

    n: int = 0
    weight: float = 1.0
    total: float = 0.0
    weights: dict[str, float] = field(default_factory=dict)

    def add(self, label: str) -> None:
        """Add an answer."""
        self.n += 1
        self.weight /= 1.0 - RATE
        self.total += self.weight
        self.weights[label] = self.weights.get(label, 0.0) + self.weight
        if self.weight > LARGEST:
            self._scale_down()

    def _scale_down(self) -> None:
        """Weigh the newest 1 again, and forget what has faded away."""
        scaled = {name: w / self.weight for name, w in self.weights.items()}
        self.weights = {name: w for name, w in scaled.items() if w * LARGEST > 1.0}
        self.weight, self.total = 1.0, sum(self.weights.values())

    @property
    def most(self) -> float:
        """The largest share that a label has."""
        return max(self.weights.values(), default=0.0) / max(self.total, 1.0)

    def label(self) -> str:
        """Return the label that has it."""
        return max(self.weights, key=self.weights.__getitem__)

    def pack(self) -> list[Any]:
        """Return the state as plain JSON."""
        return [self.n, self.weight, self.total, dict(self.weights)]


@dataclass(slots=True)
class Last:
    """In how many of the last audits something was so; `at` has their numbers."""

    n: int = 0
    at: list[int] = field(default_factory=list)

    def add(self, *, found: bool) -> None:
        """Add an audit."""
        self.n += 1
        if found:
            self.at.append(self.n)
        if self.at and self.at[0] <= self.n - WINDOW:
            del self.at[0]

    @property
    def seen(self) -> int:
        """How many audits it speaks of."""
        return min(self.n, WINDOW)

    @property
    def share(self) -> float:
        """In which share of them it was so."""
        return len(self.at) / max(1, self.seen)

    def pack(self) -> list[Any]:
        """Return the state as plain JSON."""
        return [self.n, list(self.at)]


@dataclass(slots=True)
class Health:
    """How one role does."""

    failed: Last = field(default_factory=Last)
    took: Mean = field(default_factory=lambda: Mean(RATE))
    labels: Shares = field(default_factory=Shares)

    def see(self, shadow: Shadow, name: Callable[[Label], str] = label_key) -> None:
        """Add what the role said to one question; `name` is what a label is called here."""
        self.failed.add(found=shadow.failed)
        took, most = shadow.took_ms, OUTLIER * self.took.value
        self.took.add(min(took, most) if self.took.n >= FEWEST_TIMED else took)
        if isinstance(shadow.output, bool | int | str):
            self.labels.add(name(shadow.output))

    def pack(self) -> list[Any]:
        """Return the state as plain JSON."""
        return [self.failed.pack(), self.took.pack(), self.labels.pack()]

    @classmethod
    def unpack(cls, state: Sequence[Any]) -> Health:
        """Return what `pack` wrote."""
        (n, at), took, (labels, weight, total, weights) = state
        shares = Shares(labels, weight, total, dict(weights))
        return cls(Last(n, list(at)), Mean(RATE, *took), shares)


@dataclass(slots=True)
class Company:
    """How champion and anchor agree."""

    fast: Mean = field(default_factory=lambda: Mean(FAST))
    slow: Mean = field(default_factory=lambda: Mean(SLOW))
    scale: Mean = field(default_factory=lambda: Mean(SLOW))

    def see(self, champion: Shadow, anchor: Shadow) -> None:
        """Add what both said to one question, where both could answer."""
        if champion.failed or anchor.failed:
            return
        agreed = float(self._agree(champion.output, anchor.output))
        self.fast.add(agreed)
        self.slow.add(agreed)

    def pack(self) -> list[Any]:
        """Return the state as plain JSON."""
        return [self.fast.pack(), self.slow.pack(), self.scale.pack()]

    @classmethod
    def unpack(cls, state: Sequence[Any]) -> Company:
        """Return what `pack` wrote."""
        return cls(Mean(FAST, *state[0]), Mean(SLOW, *state[1]), Mean(SLOW, *state[2]))

    def _agree(self, ours: Output, theirs: Output) -> bool:
        """Tell whether they agree: in the label, in the first place, or roughly in the number."""
        if isinstance(ours, list) and isinstance(theirs, list):
            return ours[:1] == theirs[:1]
        if isinstance(ours, float) and isinstance(theirs, float):
            self.scale.add(abs(theirs))
            return abs(ours - theirs) <= NEAR * self.scale.value
        return type(ours) is type(theirs) and ours == theirs


@dataclass(slots=True)
class Watch:
    """What the guards have seen of the audits of one generation.

    Feed it every audit in the order of the stream, then ask for alarms as often as you like. When
    the generation moves, or a challenger leaves, what was seen of them is forgotten. Labels go by
    what `name` calls them: one that was learned is somebody's text.
    """

    generation: int = 0
    roles: dict[str, Health] = field(default_factory=dict)
    company: Company = field(default_factory=Company)
    name: Callable[[Label], str] = field(default=label_key, compare=False)

    def see(self, audit: Audit) -> None:
        """Take in one audit; those of an older generation, from a replica behind, are left out."""
        if audit.generation < self.generation:
            return
        if audit.generation > self.generation:
            self.generation, self.roles, self.company = audit.generation, {}, Company()
        for role, shadow in audit.roles.items():
            health = self.roles.get(role)
            if health is None:
                health = self.roles[role] = Health()
            health.see(shadow, self.name)
        champion, anchor = audit.roles.get("champion"), audit.roles.get("anchor")
        if champion is not None and anchor is not None:
            self.company.see(champion, anchor)

    def alarms(self, aliases: Aliases, limits: Limits) -> list[Alarm]:
        """Return what is wrong now with the roles that the aliases have, role by role."""
        if aliases.generation != self.generation:
            return []
        tested = {"champion", "anchor" if aliases.following else "latest"}
        tested |= {f"challenger:{n}" for n in aliases.challengers}
        for role in self.roles.keys() - tested:
            del self.roles[role]
        found = [alarm for role in self.roles for alarm in self._of_role(role, aliases, limits)]
        if aliases.following and limits.jump:
            found += _jump(self.company.fast, self.company.slow, limits.jump)
        return found

    def _of_role(self, role: str, aliases: Aliases, limits: Limits) -> Iterator[Alarm]:
        health = self.roles[role]
        if limits.failures:
            leashed = aliases.following and role == "champion"  # the anchor answers in its place
            yield from _failure(role, health.failed, 0.0 if leashed else limits.failures)
        if limits.collapse:
            reference = self.roles.get("anchor" if aliases.following else "champion")
            if reference is not None and reference is not health:
                yield from _collapse(role, health.labels, reference.labels, limits.collapse)
        if limits.latency_ms:
            yield from _latency(role, health.took, limits.latency_ms)

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        return {
            "generation": self.generation,
            "roles": {role: health.pack() for role, health in self.roles.items()},
            "company": self.company.pack(),
        }

    @classmethod
    def unpack(cls, state: Mapping[str, Any]) -> Watch:
        """Return what `pack` wrote; of nothing, one that has seen nothing."""
        if not state:
            return cls()
        roles = {role: Health.unpack(health) for role, health in state["roles"].items()}
        return cls(state["generation"], roles, Company.unpack(state["company"]))


# --- the guards -------------------------------------------------------------------------------


def _failure(role: str, failed: Last, limit: float) -> Iterator[Alarm]:
    count, seen, share = len(failed.at), failed.seen, failed.share
    if count >= FEWEST_FAILURES and share > limit:
        sentence = (
            f"{_name(role)} failed on {count} of the last {seen} audited questions "
            f"({share:.1%}, and {limit:.1%} are allowed)."
        )
        numbers: Numbers = {"failed": count, "seen": seen, "share": share, "limit": limit}
        yield Alarm(role, "failure", sentence, numbers)


def _collapse(role: str, labels: Shares, reference: Shares, limit: float) -> Iterator[Alarm]:
    share, varied = labels.most, reference.most
    enough = min(labels.n, reference.n) >= WINDOW
    if enough and share >= limit and varied <= VARIED:
        label = labels.label()[:64]
        sentence = (
            f"{_name(role)} answers '{label}' to {share:.1%} of the audited questions of late, "
            f"where what it is compared with gives no label to more than {varied:.1%}."
        )
        numbers: Numbers = {
            "label": label,
            "share": share,
            "reference_share": varied,
            "seen": labels.n,
            "limit": limit,
        }
        yield Alarm(role, "collapse", sentence, numbers)


def _latency(role: str, took: Mean, limit_ms: float) -> Iterator[Alarm]:
    if took.n >= FEWEST_TIMED and took.value > limit_ms:
        sentence = (
            f"{_name(role)} takes {took.value:.3g} ms to answer, on average of late, and "
            f"{limit_ms:g} ms are allowed."
        )
        numbers: Numbers = {"took_ms": took.value, "seen": took.n, "limit_ms": limit_ms}
        yield Alarm(role, "latency", sentence, numbers)


def _jump(fast: Mean, slow: Mean, limit: float) -> Iterator[Alarm]:
    if slow.n >= FEWEST_COMPARED and fast.value < slow.value - limit:
        sentence = (
            f"The champion agrees with the anchor on {fast.value:.1%} of the audited questions of "
            f"late, and did on {slow.value:.1%} over a longer time."
        )
        numbers: Numbers = {
            "agreement": fast.value,
            "before": slow.value,
            "seen": slow.n,
            "limit": limit,
        }
        yield Alarm("champion", "jump", sentence, numbers)


def _name(role: str) -> str:
    kind, _, number = role.partition(":")
    return f"Version {number}" if number else {"latest": "The newest step"}.get(kind, f"The {kind}")
