"""An OpenAI chat request and its response, as they are, into a `LogRequest`."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from online_learner.errors import Invalid, from_validation
from online_learner.requests.asking import Generated, LogRequest
from online_learner.requests.values import MAX_OPTIONS


def read_chat(logged: LogRequest) -> LogRequest:
    """Return the log request that a chat completion stands for; any other is returned as it is.

    Each choice is an output, its index the id. The completion's `id` becomes the `external_id`, so
    that feedback can name it; `user` the `user_id`; all that is not `messages` a parameter.

    Raises
    ------
    Invalid
        Only one of the two was sent, or it is not a chat completion, or one of too many choices, or
        outputs are beside it.
    """
    if logged.request is None and logged.response is None:
        return logged
    if logged.request is None or logged.response is None:
        raise Invalid.at("/request", "send the chat `request` together with its `response`")
    if logged.messages or logged.outputs:
        raise Invalid.at("/outputs", "messages and outputs are those of the chat: leave them out")
    request, response = dict(logged.request), logged.response
    messages = request.pop("messages", None)
    choices = response.get("choices")
    if not (isinstance(messages, list) and messages and all(isinstance(m, dict) for m in messages)):
        raise Invalid.at("/request/messages", "must be the messages of the chat, one or more")
    if not (isinstance(choices, list) and choices):
        raise Invalid.at("/response/choices", "must be the choices of the completion, one or more")
    if len(choices) > MAX_OPTIONS:
        raise Invalid.at("/response/choices", f"at most {MAX_OPTIONS} are taken")
    return logged.model_copy(
        update={
            "messages": messages,
            "outputs": [_output(choice, index) for index, choice in enumerate(choices)],
            "parameters": logged.parameters | request,
            "model_version": logged.model_version or _name(response.get("model")),
            "external_id": logged.external_id or _name(response.get("id")),
            "user_id": logged.user_id or _name(request.get("user")),
        }
    )


def _output(choice: Any, index: int) -> Generated:
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise Invalid.at(f"/response/choices/{index}/message", "must be the message that was made")
    content, number = message.get("content"), choice.get("index")
    found: dict[str, Any] = {"id": str(index if number is None else number)}
    if isinstance(content, str) and not (message.get("tool_calls") or message.get("function_call")):
        found["text"] = content
    else:  # tool calls, refusals
        found["json"] = {key: value for key, value in message.items() if value is not None}
    try:
        return Generated.model_validate(found | {"logprobs": _logprobs(choice)})
    except ValidationError as error:
        raise from_validation(error, Generated).under("response", "choices", index) from None


def _logprobs(choice: dict[str, Any]) -> list[float] | None:
    try:
        return [float(token["logprob"]) for token in choice["logprobs"]["content"]]
    except (KeyError, TypeError, ValueError):
        return None


def _name(value: Any) -> str | None:
    return value[:256] if isinstance(value, str) and value else None
