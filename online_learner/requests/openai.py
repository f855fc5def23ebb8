"""An OpenAI chat request and its response, as they are, into a `LogRequest`."""

from __future__ import annotations

from typing import Any

from online_learner.errors import Invalid
from online_learner.requests.asking import Generated, LogRequest


def read_chat(logged: LogRequest) -> LogRequest:
    """Return the log request that a chat completion stands for; any other is returned as it is.

    Each choice is an output, its index the id. The completion's `id` becomes the `external_id`, so
    that feedback can name it; `user` the `user_id`; all that is not `messages` a parameter.

    Raises
    ------
    Invalid
        Only one of the two was sent, or it is not a chat completion.
    """
    if logged.request is None and logged.response is None:
        return logged
    if logged.request is None or logged.response is None:
        raise Invalid.at("/request", "send the chat `request` together with its `response`")
    request, response = dict(logged.request), logged.response
    messages = request.pop("messages", None)
    choices = response.get("choices")
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise Invalid.at("/request/messages", "must be the list of messages of the chat")
    if not isinstance(choices, list) or not choices:
        raise Invalid.at("/response/choices", "must be the choices of the completion, one or more")
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
    content = message.get("content")
    found: dict[str, Any] = {"id": str(choice.get("index", index))}
    if isinstance(content, str) and not message.get("tool_calls"):
        found["text"] = content
    else:  # tool calls, refusals
        found["json"] = {key: value for key, value in message.items() if value is not None}
    return Generated.model_validate(found | {"logprobs": _logprobs(choice)})


def _logprobs(choice: dict[str, Any]) -> list[float] | None:
    try:
        return [float(token["logprob"]) for token in choice["logprobs"]["content"]]
    except (KeyError, TypeError, ValueError):
        return None


def _name(value: Any) -> str | None:
    return value[:256] if isinstance(value, str) and value else None
