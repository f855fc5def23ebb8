"""What each promotion policy decides on constructed cases, and what it says about it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from online_learner.checks import POLICY_LAWS, check_policy
from online_learner.evidence import Case, Duel, Terms, Trial, log_threshold, log_threshold_spent
from online_learner.promote import Policy
from online_learner.schema import Alarm, Aliases, Move, Settled
from policies.promotion import Always, Leash, Manual, Sequential

POLICIES: dict[str, Policy] = {
    "sequential": Sequential(),
    "leash": Leash(),
    "always": Always(),
    "manual": Manual(),
}


TERMS = Terms(gamma=1.5)


def add(trial: Trial, d: float, count: int = 1, **fields: Any) -> None:
    """Add so many points to a trial, each of a rater of its own."""
    name = trial.name(0)
    for _ in range(count):
        settled = Settled(
            answered=True,
            rater=f"rater {trial.n}",
            asked={name: d != 0.0},
            points={name: d},
            **fields,
        )
        trial.fold(name, settled)


def fought(
    duel: Duel, wins: int, losses: int = 0, ties: int = 0, *, k: int = 1, terms: Terms = TERMS
) -> Trial:
    """Return a trial with these labels, losses first."""
    trial = Trial.fresh(duel, k=k, terms=terms)
    for d, count in ((-1.0, losses), (0.0, ties), (1.0, wins)):
        add(trial, d, count)
    return trial


def case(
    aliases: Aliases, *trials: Trial, candidates: Sequence[int] = (), promotions: int = 0
) -> Case:
    """Return a case under the aliases as they are."""
    kept = {trial.duel.key(aliases.generation): trial for trial in trials}
    return Case(aliases, kept, candidates, promotions)


def decided(policy: Policy, given: Case) -> Move:
    """Return the move that a policy decides on; fails where there is none."""
    move = policy.decide(given)
    assert move is not None
    return move


def sentence(move: Move) -> str:
    """Return what a move says of itself."""
    assert move.verdict is not None
    return move.verdict.sentence


@pytest.mark.parametrize("law", POLICY_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", POLICIES)
def test_laws(name: str, law: Callable[[Policy], None]) -> None:
    """Every policy keeps every law; only `Always` promotes without evidence."""
    if (name, law.__name__) == ("always", "check_no_promotion_without_evidence"):
        with pytest.raises(AssertionError):
            law(POLICIES[name])
    else:
        law(POLICIES[name])


class _Broken(Sequential):
    """A policy that moves while frozen, and keeps the generation."""

    def decide(self, case: Case) -> Move:
        """Have the newest version answer."""
        return Move(case.aliases.model_copy(update={"champion": 99}))


def test_check_policy_finds_each_breach() -> None:
    """A policy that breaks every law is found out on each of them."""
    with pytest.raises(ExceptionGroup) as caught:
        check_policy(_Broken())
    assert len(caught.value.exceptions) == len(POLICY_LAWS)
    check_policy(
        Always(), expected_failed_checks={"check_no_promotion_without_evidence": "its purpose"}
    )


# --- Sequential -----------------------------------------------------------------------------------

UNDER_TEST = Aliases(champion=1, challengers=(2, 3, 4), trusted=True, generation=3)


def versus_champion(version: int) -> Duel:
    """Return a challenger's duel with the champion."""
    return Duel(f"challenger:{version}", "champion", version=version)


def test_sequential_compares_every_challenger() -> None:
    """Each challenger is compared to the champion."""
    assert Sequential().duels(UNDER_TEST) == [versus_champion(n) for n in (2, 3, 4)]


def test_sequential_promotes_the_winner() -> None:
    """A challenger with enough evidence answers; older ones fall, younger ones are tested anew."""
    trials = [
        fought(versus_champion(2), 1, 5),
        fought(versus_champion(3), 60, 5, 35, k=2),
        fought(versus_champion(4), 3, 3),
    ]
    move = decided(Sequential(), case(UNDER_TEST, *trials))
    after = move.aliases
    assert (after.champion, after.previous, after.challengers) == (3, 1, (4,))
    assert (after.generation, after.lineage, after.following) == (4, 1, False)
    assert after.trusted
    assert move.statuses == {3: "blessed", 2: "rejected"}
    assert move.reset_to is None


def test_promotion_says_why_in_numbers() -> None:
    """The sentence and the numbers of a promotion carry what it rests on."""
    trial = fought(versus_champion(2), 60, 5, 35, k=2)
    move = decided(Sequential(), case(UNDER_TEST, trial))
    assert move.verdict is not None
    needed = log_threshold(0.01, k=2, promotions=0)
    said = move.verdict.sentence
    assert said.startswith(
        "Version 2 answers from now on: it beat version 1 by 60 wins to 5 losses"
    )
    for number in (
        "in 100 audited answers",
        "+55.0 points",
        f"e-value {math.exp(trial.log_e):.3g}",
        f"needed {math.exp(needed):.3g}",
    ):
        assert number in said
    assert move.verdict.action == "promote"
    assert (move.verdict.version, move.verdict.reference, move.verdict.by) == (2, 1, "Sequential")
    expected = {
        "n": 100,
        "wins": 60,
        "losses": 5,
        "mean": 0.55,
        "log_e": trial.log_e,
        "log_e_needed": needed,
        "candidate": 2,
        "alpha": 0.01,
        "promotions": 0,
        "gamma": 1.5,
        "m": 0.2,
        "raters": 50,
        "audited": 100,
        "response_where_differed": 1.0,
    }
    assert expected.items() <= move.verdict.numbers.items()
    even = move.verdict.numbers["break_even_gamma"]
    assert isinstance(even, float)
    assert even > 1.5
    assert f"would hold up to {even:.3g} times" in said


def test_sequential_promotes_at_the_threshold_only() -> None:
    """One win before the threshold nothing moves, and at it the challenger does."""
    policy, aliases = Sequential(), Aliases(champion=1, challengers=(2,))
    trial = fought(versus_champion(2), 0)
    while trial.log_e < log_threshold(0.01, k=1, promotions=0):
        assert policy.decide(case(aliases, trial)) is None
        add(trial, 1.0)
    assert decided(policy, case(aliases, trial)).aliases.champion == 2


def test_later_candidates_need_more() -> None:
    """The 30th candidate does not win with what suffices for the first, unless others have won."""
    policy, aliases = Sequential(), Aliases(champion=1, challengers=(2,))
    first, late = (fought(versus_champion(2), 16, k=k) for k in (1, 30))
    assert decided(policy, case(aliases, first)).aliases.champion == 2
    assert policy.decide(case(aliases, late)) is None
    assert decided(policy, case(aliases, late, promotions=100)).aliases.champion == 2


def test_evidence_of_another_generation_is_none() -> None:
    """Trials under an old generation do not decide."""
    trial = fought(versus_champion(2), 100)
    old = {trial.duel.key(UNDER_TEST.generation - 1): trial}
    assert Sequential().decide(Case(UNDER_TEST, old, (), 0)) is None


def test_sequential_retires_after_its_patience() -> None:
    """A challenger that has not won after its labels is rejected, and says how far it got."""
    policy = Sequential(patience=100)
    trial = fought(versus_champion(3), 22, 10, 68)
    assert policy.decide(case(UNDER_TEST, fought(versus_champion(3), 22, 10, 67))) is None
    move = decided(policy, case(UNDER_TEST, trial))
    assert move.aliases == UNDER_TEST.model_copy(update={"challengers": (2, 4)})
    assert move.statuses == {3: "rejected"}
    assert move.verdict is not None
    assert move.verdict.action == "reject"
    assert "against version 1 it had 22 wins to 10 losses in 100 audited" in sentence(move)
    more = "About "
    assert (more in sentence(move)) == (trial.log_e > 0)


def test_rejection_says_how_many_more_labels() -> None:
    """Where there was progress, the sentence of a rejection tells how much more it would take."""
    trial = fought(versus_champion(2), 30, 10, 60)
    assert trial.log_e > 0
    move = decided(Sequential(patience=100), case(UNDER_TEST, trial))
    goal = log_threshold(0.01, k=1, promotions=0)
    more = math.ceil(100 * (goal - trial.log_e) / trial.test.log_best)  # type: ignore[union-attr]
    assert sentence(move).endswith(f"About {more} more labels would have decided it.")


def test_sequential_admits_what_it_has_room_for() -> None:
    """New snapshots become challengers up to the limit; the others are rejected."""
    aliases = Aliases(champion=1, challengers=(2,))
    move = decided(Sequential(max_open=3), case(aliases, candidates=(3, 4, 5)))
    assert move.aliases.challengers == (2, 3, 4)
    assert move.aliases.generation == aliases.generation
    assert move.statuses == {5: "rejected"}
    assert move.verdict is not None
    assert move.verdict.action == "admit"
    assert sentence(move) == (
        "Versions 3, 4 are tested against version 1 from now on. "
        "Version 5 is dropped: enough are under test."
    )


@pytest.mark.parametrize(
    ("since_cut", "changes", "due"),
    [
        (199, {}, False),
        (200, {}, True),
        (200, {"challengers": (1, 2, 3)}, False),
        (200, {"frozen": True}, False),
    ],
)
def test_sequential_snapshots(since_cut: int, changes: dict[str, Any], due: bool) -> None:
    """A snapshot is due every 200 learned signals, where there is room and no freeze."""
    aliases = Aliases(champion=1).model_copy(update=changes)
    assert Sequential().snapshot_due(aliases, since_cut) is due


# --- Leash ----------------------------------------------------------------------------------------

COLD = Aliases(champion=0)
ON_LEASH = Aliases(
    champion=0,
    following=True,
    anchor=0,
    previous=0,
    challengers=(3, 4),
    trusted=True,
    generation=2,
)
LINEAGE = Duel("latest", "champion")
PULL = Duel("anchor", "champion", detector=True)


def versus_anchor(version: int) -> Duel:
    """Return a snapshot's duel with the anchor."""
    return Duel(f"challenger:{version}", "anchor", version=version)


def test_leash_tests_the_lineage_first() -> None:
    """Before trust is earned the lineage itself is compared; then the ladder and the anchor."""
    assert Leash().duels(COLD) == [LINEAGE]
    assert Leash().duels(ON_LEASH) == [versus_anchor(3), versus_anchor(4), PULL]


def test_leash_follows_the_lineage_that_won() -> None:
    """Once the lineage has won, it answers, and what answered before is the anchor."""
    move = decided(Leash(), case(COLD, fought(LINEAGE, 40, 2)))
    assert move.aliases == Aliases(
        champion=0, following=True, anchor=0, previous=0, trusted=True, generation=2
    )
    assert move.verdict is not None
    assert (move.verdict.action, move.verdict.by) == ("follow", "Leash")
    assert "The champion follows the learner" in sentence(move)
    assert "by 40 wins to 2 losses in 42 audited answers" in sentence(move)
    assert move.reset_to is None


def test_leash_waits_for_evidence() -> None:
    """A lineage that is not better is not followed."""
    assert Leash().decide(case(COLD, fought(LINEAGE, 20, 20))) is None
    assert Leash().decide(case(COLD, fought(LINEAGE, 3))) is None
    assert Leash().decide(case(COLD)) is None


def test_leash_blesses_a_rung() -> None:
    """A snapshot that beat the anchor becomes the anchor; the champion goes on following."""
    trials = [fought(versus_anchor(3), 40, 2), fought(PULL, 0, 10)]
    move = decided(Leash(), case(ON_LEASH, *trials))
    after = move.aliases
    assert (after.champion, after.anchor, after.previous) == (3, 3, 0)
    assert (after.following, after.challengers) == (True, (4,))
    assert after.generation == ON_LEASH.generation + 1
    assert move.verdict is not None
    assert move.verdict.action == "bless"
    assert "Version 3 is blessed as the new anchor: it beat version 0" in sentence(move)


def test_leash_is_pulled() -> None:
    """Where the anchor has become better, it answers again and the learner starts anew from it."""
    trial = fought(PULL, 60, 5)
    move = decided(Leash(), case(ON_LEASH, trial, fought(versus_anchor(3), 40, 2)))
    assert move.aliases == Aliases(champion=0, lineage=2, generation=3, trusted=False)
    assert move.reset_to == 0
    assert move.statuses == {3: "rejected", 4: "rejected"}
    assert move.verdict is not None
    assert move.verdict.action == "pull"
    assert "version 0 answers again" in sentence(move)
    assert "Against what was served it had 60 wins to 5 losses in 65 audited" in sentence(move)
    assert move.verdict.numbers["log_e"] == trial.log_e >= math.log(10_000)


def test_leash_is_not_pulled_by_agreement_or_bad_luck() -> None:
    """A few losses, or any number of answers on which both agree, do not pull the leash."""
    assert Leash().decide(case(ON_LEASH, fought(PULL, 6, 0))) is None
    assert Leash().decide(case(ON_LEASH, fought(PULL, 1, 3, 12_000))) is None


def test_leash_is_pulled_at_its_level_only() -> None:
    """One label before the level nothing moves, and at it the leash is pulled."""
    policy, trial = Leash(mean_labels_between_false_pulls=500), fought(PULL, 0)
    while not trial.reached(math.log(500)):
        assert policy.decide(case(ON_LEASH, trial)) is None
        add(trial, 1.0)
    assert decided(policy, case(ON_LEASH, trial)).verdict.action == "pull"  # type: ignore[union-attr]


def test_leash_cuts_no_snapshots_before_it_follows() -> None:
    """None are cut before the leash, and what was registered is tested all the same."""
    assert not Leash().snapshot_due(COLD, 10_000)
    assert Leash().snapshot_due(ON_LEASH, 200)
    move = decided(Leash(), case(COLD, candidates=(5,)))
    assert move.aliases == COLD.model_copy(update={"challengers": (5,)})
    assert [duel.challenger for duel in Leash().duels(move.aliases)] == ["latest", "challenger:5"]


def test_the_lineages_test_starts_anew() -> None:
    """After so many labels without a decision the lineage is a new candidate, without a memory."""
    policy = Leash(restart_after=100)
    assert policy.decide(case(COLD, fought(LINEAGE, 10, 30, 59))) is None
    move = decided(policy, case(COLD, fought(LINEAGE, 10, 30, 60)))
    assert (move.aliases, move.restart) == (COLD, ("latest>champion@1",))
    assert move.verdict is not None
    assert move.verdict.action == "restart"
    assert decided(policy, case(COLD, fought(LINEAGE, 80, 2, 60))).aliases.following


# --- who was heard --------------------------------------------------------------------------------


def test_too_few_raters_promote_nothing() -> None:
    """Evidence enough, from fewer raters than are asked for, waits for more."""
    few = fought(versus_champion(2), 60, terms=Terms(min_raters=51))
    assert Sequential().decide(case(UNDER_TEST, few)) is None
    enough = fought(versus_champion(2), 60, terms=Terms(min_raters=50))
    assert decided(Sequential(), case(UNDER_TEST, enough)).aliases.champion == 2


def test_strict_spends_its_level() -> None:
    """In strict mode each candidate has a level of its own, whatever others won."""
    policy, aliases = Sequential(strict=True), Aliases(champion=1, challengers=(2,))
    trial = fought(versus_champion(2), 0, k=3)
    while trial.log_e < log_threshold_spent(0.01, k=3):
        assert policy.decide(case(aliases, trial, promotions=50)) is None
        add(trial, 1.0)
    assert decided(policy, case(aliases, trial)).aliases.champion == 2


# --- guards ---------------------------------------------------------------------------------------


def alarmed(aliases: Aliases, role: str, guard: str, settled: int = 0, *trials: Trial) -> Case:
    """Return a case in which a guard has found something."""
    kept = {trial.duel.key(aliases.generation): trial for trial in trials}
    alarm = Alarm(role, guard, "It is so", {"seen": 3})
    return Case(aliases, kept, (), 0, settled=settled, alarms=(alarm,))


@pytest.mark.parametrize("frozen", [False, True])
def test_a_guard_retires_a_challenger(frozen: bool) -> None:
    """A challenger that fails is out at once, frozen or not."""
    aliases = UNDER_TEST.model_copy(update={"frozen": frozen})
    move = decided(Sequential(), alarmed(aliases, "challenger:3", "failure"))
    assert (move.aliases.challengers, move.statuses) == ((2, 4), {3: "rejected"})
    assert move.verdict is not None
    assert (move.verdict.guard, move.verdict.by) == ("failure", "guard:failure")
    assert sentence(move).endswith("It is so.")


def test_a_guard_goes_back_to_the_champion_before() -> None:
    """A champion that collapses gives way to the one before it; the first one has none."""
    aliases = UNDER_TEST.model_copy(update={"previous": 0})
    move = decided(Sequential(), alarmed(aliases, "champion", "collapse"))
    assert (move.aliases.champion, move.reset_to, move.aliases.lineage) == (0, 0, 2)
    assert Sequential().decide(alarmed(UNDER_TEST, "champion", "collapse")) is None


@pytest.mark.parametrize("frozen", [False, True])
def test_a_guard_pulls_the_leash(frozen: bool) -> None:
    """Failures of what is served pull the leash without a label, frozen or not."""
    aliases = ON_LEASH.model_copy(update={"frozen": frozen, "pinned": frozen})
    move = decided(Leash(), alarmed(aliases, "champion", "failure"))
    assert (move.aliases.following, move.aliases.frozen, move.reset_to) == (False, frozen, 0)


def test_a_jump_raises_doubt_and_nothing_more() -> None:
    """Where answers jump, all are audited for a while; if nothing comes of it, trust is back."""
    move = decided(Leash(), alarmed(ON_LEASH, "champion", "jump", 1000))
    doubted = move.aliases
    assert (doubted.following, doubted.doubt, doubted.generation) == (True, 1500, 2)
    assert Leash().decide(alarmed(doubted, "champion", "jump", 1499)) is None
    again = decided(Leash(), Case(doubted, {}, (), 0, settled=1500))
    assert again.aliases == ON_LEASH
    assert again.verdict is not None
    assert again.verdict.action == "trust"


def test_an_unpaired_alarm_freezes() -> None:
    """Where only "wrong" is said, ever more often, what is served is frozen."""
    move = decided(Leash(), alarmed(ON_LEASH, "champion", "unpaired"))
    assert (move.aliases.frozen, move.aliases.pinned, move.pin) == (True, True, True)
    assert Leash().decide(alarmed(move.aliases, "champion", "unpaired")) is None


def test_a_lineage_that_is_unfit_is_not_followed() -> None:
    """Better on the whole and collapsed, or failing: it has to wait."""
    won = fought(LINEAGE, 60)
    assert Leash().decide(alarmed(COLD, "latest", "collapse", 60, won)) is None
    assert decided(Leash(), case(COLD, won)).aliases.following


def test_a_segment_that_got_worse_keeps_a_challenger_out() -> None:
    """Far better on the whole, and worse where the country is `de`: retired, and it says so."""
    trial = fought(versus_champion(2), 0)
    add(trial, 1.0, 100, segments={"country": "fr"})
    add(trial, -1.0, 30, segments={"country": "de"})
    move = decided(Sequential(), case(UNDER_TEST, trial))
    assert move.statuses == {2: "rejected"}
    assert "challenger:2 is significantly worse where country = de" in sentence(move)


def test_a_segment_that_got_worse_pulls_the_leash() -> None:
    """What is served is pulled back where a declared segment suffers, fine as it is elsewhere."""
    trial = fought(PULL, 0)
    add(trial, -1.0, 100, segments={"country": "fr"})
    add(trial, 1.0, 30, segments={"country": "de"})
    move = decided(Leash(), case(ON_LEASH, trial))
    assert (move.reset_to, move.aliases.following) == (0, False)


# --- Always and Manual ----------------------------------------------------------------------------


def test_always_follows_at_once() -> None:
    """Without any evidence the learner answers, and the verdict says that none was asked for."""
    move = decided(Always(), case(COLD))
    assert move.aliases.following
    assert sentence(move).endswith("the policy asks for no evidence.")
    assert Always().decide(case(move.aliases)) is None
    assert Always().duels(COLD) == []
    assert Always.trusted_at_once
    assert not Always().snapshot_due(COLD, 10**6)


def test_manual_never_promotes() -> None:
    """However strong the evidence, only an operator promotes; new snapshots push out old ones."""
    policy = Manual(max_open=3)
    assert policy.decide(case(UNDER_TEST, fought(versus_champion(2), 500))) is None
    move = decided(policy, case(UNDER_TEST, candidates=(5, 6)))
    assert move.aliases == UNDER_TEST.model_copy(update={"challengers": (4, 5, 6)})
    assert move.statuses == {2: "rejected", 3: "rejected"}
    assert policy.duels(UNDER_TEST) == Sequential().duels(UNDER_TEST)
    assert policy.snapshot_due(UNDER_TEST, 200)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("aliases", [COLD, UNDER_TEST, ON_LEASH], ids=["cold", "tested", "leash"])
def test_frozen_does_nothing(name: str, aliases: Aliases) -> None:
    """While frozen, no policy admits, promotes, rejects, follows, pulls or keeps a snapshot."""
    frozen = aliases.model_copy(update={"frozen": True})
    policy = POLICIES[name]
    trials = [fought(duel, 500) for duel in policy.duels(frozen)]
    assert policy.decide(case(frozen, *trials, candidates=(9,))) is None
    assert not policy.snapshot_due(frozen, 10**6)  # type: ignore[attr-defined]


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"alpha": 0},
        {"alpha": 3, "strict": True},
        {"alpha": "0.1"},
        {"fdr": 1.0},
        {"margin": -0.1},
        {"max_open": 0},
        {"patience": True},
        {"restart_after": 0},
        {"mean_labels_between_false_pulls": 1},
    ],
    ids=str,
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any]) -> None:
    """A level, a count or a share that cannot be is refused when the policy is made, by name."""
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` must be a number"):
        Leash(**arguments)


@pytest.mark.parametrize("policy", [Sequential(), Manual()], ids=["sequential", "manual"])
def test_a_policy_without_a_leash_takes_it_off(policy: Policy) -> None:
    """Where another policy let the champion follow the learner, the anchor answers first of all."""
    move = decided(policy, case(ON_LEASH))
    assert (move.aliases.following, move.aliases.champion, move.reset_to) == (False, 0, 0)
    assert move.statuses == {3: "rejected", 4: "rejected"}
    assert sentence(move).endswith("keeps no leash.")


def test_a_doubt_outlasts_what_was_pending() -> None:
    """Audits from before the doubt do not end it."""
    found = case(ON_LEASH)
    alarm = Alarm("champion", "jump", "They differ.", {})
    given = replace(found, settled=1000, waiting=700, alarms=(alarm,))
    move = decided(Leash(), given)
    assert move.aliases.doubt == 1000 + 700 + 500
    assert sentence(move).endswith("They differ.")
    assert not sentence(move).endswith("..")
