"""Prompts as the caller writes them, checked and made ready for the Rust core."""

from __future__ import annotations

from .arguments import integer, shown, text, wrong
from .errors import InvalidParameterError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._phicandle import _Prompt

_HINT = (
    "Pass a sentence (str), a list of messages ({'role': ..., 'content': ...}) or a list of token ids (int)."
)


def prepare(prompt: object, template: bool | None = None) -> _Prompt:
    """Checks a prompt and returns its form for the Rust core.

    Args:
        prompt: A str, a sequence of messages, or a sequence of token ids.
        template: As in `SamplingParams`.

    Returns:
        `("text" | "raw" | "turn", str)`, `("messages", json)` or `("ids", list of int)`.

    Raises:
        InvalidParameterError: It is none of these, is empty, or holds text that is not text.
    """
    if isinstance(prompt, str):
        if not prompt:
            raise _invalid("The prompt is empty.")
        form = "text" if template is None else "turn" if template else "raw"
        return form, text("prompt", prompt)
    if isinstance(prompt, (bytes, bytearray, dict, set, frozenset)) or not (
        hasattr(prompt, "__iter__") and hasattr(prompt, "__len__")
    ):
        raise _invalid(f"The prompt is {shown(prompt)}.")
    items = list(prompt)
    if not items:
        raise _invalid("The prompt is empty.")
    if hasattr(items[0], "keys"):
        return "messages", _messages(items)
    if isinstance(items[0], bool) or not hasattr(items[0], "__index__"):
        raise _invalid(f"The prompt's first item is {shown(items[0])}.")
    return "ids", [integer("prompt", item, 0, 2**32 - 1) for item in items]


def messages_json(messages: object) -> str:
    """Returns messages as JSON text.

    Raises:
        InvalidParameterError: They are not a sequence of messages.
    """
    form, value = prepare(messages)
    if form != "messages" or not isinstance(value, str):
        raise _invalid(f"The messages are {shown(messages)}.")
    return value


def tools_json(tools: object) -> str:
    """Returns tools as JSON text; `None` is no tools.

    Raises:
        InvalidParameterError: They are not a sequence of mappings that JSON can hold.
    """
    import json

    if tools is None:
        return "[]"
    if isinstance(tools, (str, bytes)) or not (hasattr(tools, "__iter__") and hasattr(tools, "__len__")):
        raise wrong("tools", "a list of JSON schemas of functions", tools)
    items = []
    for item in tools:
        if not hasattr(item, "keys"):
            raise wrong("tools", "a list of mappings", item)
        items.append(dict(item))
    try:
        written = json.dumps(items, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidParameterError(
            f"A tool cannot be written as JSON: {error}.",
            hint="Pass JSON schemas: mappings of str, int, float, bool, None, list and dict.",
            parameter="tools",
        ) from None
    return text("tools", written)


def _messages(items: list[Any]) -> str:
    # Imported here: messages are the only thing that needs it, and it would slow every import of the package.
    import json

    messages = []
    for index, item in enumerate(items):
        if not hasattr(item, "keys"):
            raise _invalid(f"Message {index} of the prompt is {shown(item)}, not a mapping.")
        message = dict(item)
        for name in ("role", "content"):
            if not isinstance(message.get(name), str):
                found = shown(message[name]) if name in message else "missing"
                raise _invalid(f"Message {index} of the prompt needs a str as {name!r}; it is {found}.")
            text("prompt", message[name])
        messages.append(message)
    try:
        written = json.dumps(messages, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise _invalid(f"A message of the prompt cannot be written as JSON: {error}.") from None
    return text("prompt", written)


def _invalid(message: str) -> InvalidParameterError:
    return InvalidParameterError(message, hint=_HINT, parameter="prompt")
