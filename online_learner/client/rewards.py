"""The reward model as a reward function of TRL.

    trainer = GRPOTrainer(reward_funcs=client.reward_func("chat"), ...)

TRL calls it with keyword arguments: `prompts` and `completions`, of one length, and the columns of
the data set; it wants a number for each completion, and shows it under the function's `__name__`
(TRL, "GRPO Trainer: using a custom reward function"). Each is a text, or the messages of a chat.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from online_learner.chat import chat_text
from online_learner.client.calls import generated
from online_learner.client.sending import Json
from online_learner.schema import canonical

Chat: TypeAlias = list[dict[str, Any]]


def by_prompt(
    prompts: Sequence[str | Chat], completions: Sequence[str | Chat]
) -> list[tuple[list[int], Json]]:
    """Return one question for each distinct prompt, and the places of its completions.

    >>> [places for places, _ in by_prompt(["a", "b", "a"], ["1", "2", "3"])]
    [[0, 2], [1]]
    """
    places: dict[str, list[int]] = {}
    for place, (prompt, _) in enumerate(zip(prompts, completions, strict=True)):
        places.setdefault(canonical(prompt), []).append(place)
    return [
        (group, _question(prompts[group[0]], [completions[place] for place in group]))
        for group in places.values()
    ]


def in_order(groups: Sequence[list[int]], found: Sequence[list[float]]) -> list[float]:
    """Return the rewards of all groups in the order of the completions."""
    rewards = {
        place: reward
        for group, of_group in zip(groups, found, strict=True)
        for place, reward in zip(group, of_group, strict=True)
    }
    return [rewards[place] for place in sorted(rewards)]


def _question(prompt: str | Chat, completions: list[str | Chat]) -> Json:
    outputs = [_text(completion) for completion in completions]
    if isinstance(prompt, str):
        return generated(prompt, None, outputs)
    return generated(None, prompt, outputs)


def _text(completion: str | Chat) -> str:
    """Return a completion as it is logged: the content of its one message, or all of the turns.

    >>> _text([{"role": "assistant", "content": "Blue."}])
    'Blue.'
    """
    if isinstance(completion, str):
        return completion
    if len(completion) == 1 and isinstance(completion[0].get("content"), str):
        return str(completion[0]["content"])
    return chat_text(completion)
