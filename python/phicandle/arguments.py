"""Checks of keyword arguments: unknown names, aliases, types. Ranges are checked in Rust, once for every door."""

from __future__ import annotations

from .errors import InvalidParameterError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any

INT_MAX = 2**63 - 1


def shown(value: object) -> str:
    """Returns a short description of a wrong value for a message: its repr, clipped, and its type."""
    try:
        text = repr(value)
    except Exception:  # A caller's object may fail even here; the message must not.
        return f"a {type(value).__name__}"
    if len(text) > 80:
        text = text[:77] + "..."
    return f"{text} ({type(value).__name__})"


def wrong(name: str, expected: str, value: object) -> InvalidParameterError:
    """Returns the error for an argument `name` that is not what was `expected`."""
    return InvalidParameterError(
        f"{name} must be {expected}, not {shown(value)}.",
        hint=f"Pass {name} as {expected}.",
        parameter=name,
    )


def rename(
    given: Mapping[str, Any], known: Collection[str], aliases: Mapping[str, str], where: str
) -> dict[str, Any]:
    """Replaces aliases among keyword arguments by the names they stand for.

    Args:
        given: Keyword arguments as the caller wrote them.
        known: The names that exist.
        aliases: Other names that are accepted, each with the name it stands for.
        where: The callable, for messages.

    Returns:
        The arguments under known names only.

    Raises:
        InvalidParameterError: A name is unknown, or two names for one thing were given.
    """
    result: dict[str, Any] = {}
    written: dict[str, str] = {}
    for name, value in given.items():
        target = name if name in known else aliases.get(name)
        if target is None:
            raise _unknown(name, known, aliases, where)
        if target in result:
            raise InvalidParameterError(
                f"{where} got {written[target]} and {name}, which are the same parameter.",
                hint=f"Pass only {target}.",
                parameter=name,
                suggestion=target,
            )
        result[target] = value
        written[target] = name
    return result


def merge(
    given: Mapping[str, Any], more: Mapping[str, Any], defaults: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Adds arguments that came under other names to those that came under their own.

    Raises:
        InvalidParameterError: One of `more` was also given under its own name.
    """
    for name in more:
        if name in given and given[name] != defaults.get(name):
            raise InvalidParameterError(
                f"{where} got {name} twice: under its own name and under another one.",
                hint=f"Pass only {name}.",
                parameter=name,
                suggestion=name,
            )
    return {**given, **more}


def _unknown(
    name: str, known: Collection[str], aliases: Mapping[str, str], where: str
) -> InvalidParameterError:
    # Imported here: only a mistake needs it, and it would slow every import of the package.
    from difflib import get_close_matches

    near = get_close_matches(name, [*known, *aliases], n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}?" if near else f"{where} knows these: {', '.join(known)}."
    return InvalidParameterError(
        f"{where} has no parameter {name}.",
        hint=hint,
        parameter=name,
        suggestion=near[0] if near else None,
    )


def integer(name: str, value: object, low: int = 0, high: int = INT_MAX) -> int:
    """Returns `value` as an int from `low` to `high`. Integers of other libraries (NumPy) pass too; bool does not."""
    # A prompt may be thousands of them, and nearly all are plain ones.
    if type(value) is int and low <= value <= high:
        return value
    expected = f"an int of at least {low}" if high == INT_MAX else f"an int from {low} to {high}"
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise wrong(name, expected, value)
    number: int = value.__index__()
    if not low <= number <= high:
        raise wrong(name, expected, value)
    return number


def number(name: str, value: object) -> float:
    """Returns `value` as a float. Numbers of other libraries pass too; bool and str do not."""
    if isinstance(value, (bool, str, bytes, bytearray)) or not (
        hasattr(value, "__float__") or hasattr(value, "__index__")
    ):
        raise wrong(name, "a number", value)
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise wrong(name, "a number", value) from None


def flag(name: str, value: object) -> bool:
    """Returns `value` when it is a bool."""
    if not isinstance(value, bool):
        raise wrong(name, "True or False", value)
    return value


def text(name: str, value: object) -> str:
    """Returns `value` when it is a str of whole characters (no lone surrogates)."""
    if not isinstance(value, str):
        raise wrong(name, "a str", value)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidParameterError(
            f"{name} has a lone surrogate (U+{ord(value[error.start]):04X}) at character {error.start}, "
            "which is not text.",
            hint='Decode the bytes it came from as UTF-8 with errors="replace".',
            parameter=name,
        ) from None
    # A plain str: a subclass (a Chunk, say) may carry more than the core should see.
    return str.__str__(value)


def strings(name: str, value: object) -> tuple[str, ...]:
    """Returns a str, or an iterable of them, as a tuple of str. `None` is no string at all."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (text(name, value),)
    if isinstance(value, (bytes, bytearray)) or not hasattr(value, "__iter__"):
        raise wrong(name, "a str or a sequence of str", value)
    return tuple(text(name, item) for item in value)


def token_ids(name: str, value: object) -> tuple[int, ...]:
    """Returns an iterable of token ids as a tuple of int."""
    if value is None:
        return ()
    if isinstance(value, (str, bytes, bytearray)) or not hasattr(value, "__iter__"):
        raise wrong(name, "a sequence of token ids", value)
    return tuple(integer(name, item, 0, 2**32 - 1) for item in value)
