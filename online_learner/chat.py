"""What options share when they answer one question: a prompt, or the messages of a chat."""

from __future__ import annotations

from typing import Any


def shared_context(features: dict[str, Any]) -> dict[str, Any]:
    """Return what the options of a question share: a chat's messages as one text.

    A feature of that name that is no chat is a feature like any other.

    >>> shared_context({"messages": "unread"})
    {'messages': 'unread'}
    """
    messages = features.get("messages")
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        return features
    return {"prompt": chat_text(messages)}


def chat_text(messages: list[dict[str, Any]]) -> str:
    """Return the messages of a chat as one text.

    >>> chat_text([{"role": "user", "content": [{"type": "text", "text": "Hi"}]}])
    'user: Hi'
    """
    return "\n".join(f"{m.get('role', '')}: {_content(m.get('content'))}" for m in messages)


def _content(content: Any) -> str:
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return "" if content is None else str(content)
