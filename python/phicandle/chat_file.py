"""The file of a saved `Chat`: JSON, checked key by key when it is read."""

from __future__ import annotations

import json
import os
from pathlib import Path

from .errors import ChatFileError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from .types import StrPath

FORMAT = "phicandle-chat"
VERSION = 1

# A conversation that fills the longest context is far below both.
MOST_BYTES = 64 << 20
MOST_NESTED = 64

FINISH_REASONS = ("stop", "length", "cancelled", "timeout", "tool_calls")


class Saved:
    """What a file holds.

    Args:
        system: The system message, if any.
        messages: The messages, as a `Chat` keeps them.
        tools: JSON schemas of functions.
        kv: Whether its keys and values were saved too.
    """

    __slots__ = ("kv", "messages", "system", "tools")

    def __init__(
        self, system: str | None, messages: list[dict[str, Any]], tools: list[dict[str, Any]], kv: bool
    ) -> None:
        self.system = system
        self.messages = messages
        self.tools = tools
        self.kv = kv


def beside(path: StrPath) -> str:
    """Returns the path of the keys and values that belong to a chat."""
    return f"{Path(path).resolve()}.kv"


def write(path: StrPath, model: str, saved: Saved) -> None:
    """Writes a conversation; an old file is replaced when the new one is complete.

    Keys and values that no longer belong to it go.

    Raises:
        ChatFileError: The system does not let it.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "model": model,
        "system": saved.system,
        "tools": saved.tools,
        "kv": saved.kv,
        "messages": saved.messages,
    }
    data = json.dumps(content, ensure_ascii=False, indent=1).encode()
    try:
        # The file itself, where the path is a link to it.
        target = Path(path).resolve()
        part = target.with_name(f"{target.name}.{os.getpid()}-{os.urandom(4).hex()}.part")
        try:
            with part.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        if not saved.kv:
            Path(beside(path)).unlink(missing_ok=True)
    except OSError as error:
        raise ChatFileError(
            f"The chat could not be written: {error}.",
            hint="Choose another place, or free some space.",
            path=os.fspath(path),
        ) from error


def read(path: StrPath) -> Saved:
    """Reads a conversation.

    Raises:
        ChatFileError: The file cannot be read, or does not hold one.
    """
    name = os.fspath(path)
    try:
        with Path(path).open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ChatFileError(
            f"The chat could not be read: {error}.", hint="Check the path and its permissions.", path=name
        ) from error
    reader = _Reader(name)
    if len(data) > MOST_BYTES:
        reader.refuse(None, f"it is longer than {MOST_BYTES >> 20} MiB")
    return reader.saved(reader.parsed(data))


class _Reader:
    """Checks the content of one file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def refuse(self, place: str | None, why: str) -> NoReturn:
        where = "The chat file cannot be used" if place is None else f"The chat file's {place} cannot be used"
        raise ChatFileError(
            f"{where}: {why}.", hint="Load a file that Chat.save has written.", path=self.path, place=place
        )

    def parsed(self, data: bytes) -> Any:
        try:
            return json.loads(data, parse_constant=self._constant, object_pairs_hook=self._object)
        except ChatFileError:
            raise
        except RecursionError:
            self.refuse(None, "it is nested too deep")
        except ValueError as error:
            self.refuse(None, f"it is not JSON ({error})")

    def _constant(self, name: str) -> NoReturn:
        self.refuse(None, f"{name} is no number of JSON")

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            before: set[str] = set()
            for name, _ in pairs:
                if name in before:
                    self.refuse(name[:80], "it is there twice")
                before.add(name)
        return found

    def saved(self, content: Any) -> Saved:
        if not isinstance(content, dict):
            self.refuse(None, "it is not a JSON object")
        if content.get("format") != FORMAT:
            self.refuse("format", f"it is not {FORMAT!r}")
        version = content.get("version")
        if type(version) is not int or version != VERSION:
            self.refuse("version", f"this phicandle knows version {VERSION} only")
        self.text("model", content.get("model"))
        system = content.get("system")
        if system is not None:
            self.text("system", system)
        messages = self.items("messages", content.get("messages"))
        for at, message in enumerate(messages):
            self.message(f"messages[{at}]", message)
        tools = self.items("tools", content.get("tools"))
        for at, tool in enumerate(tools):
            if not isinstance(tool, dict):
                self.refuse(f"tools[{at}]", "it is not an object")
            self.check(f"tools[{at}]", tool)
        kv = content.get("kv")
        if not isinstance(kv, bool):
            self.refuse("kv", "it is neither true nor false")
        return Saved(system, messages, tools, kv)

    def message(self, place: str, message: Any) -> None:
        if not isinstance(message, dict):
            self.refuse(place, "it is not an object")
        for name in ("role", "content"):
            self.text(f"{place}.{name}", message.get(name))
        if "finish_reason" in message and message["finish_reason"] not in FINISH_REASONS:
            self.refuse(f"{place}.finish_reason", "it is no reason")
        ids = self.items(f"{place}.token_ids", message.get("token_ids", []))
        if not all(type(token) is int and 0 <= token < 2**32 for token in ids):
            self.refuse(f"{place}.token_ids", "it holds what is no token id")
        for name, value in message.items():
            self.check(f"{place}.{name[:80]}", value)

    def items(self, place: str, value: Any) -> list[Any]:
        if not isinstance(value, list):
            self.refuse(place, "it is not a list")
        return value

    def text(self, place: str, value: Any) -> None:
        if not isinstance(value, str):
            self.refuse(place, "it is not a text")
        self.check(place, value)

    def check(self, place: str, value: Any, depth: int = 0) -> None:
        """Checks that a value can go into a prompt: no half characters, not nested too deep."""
        if depth > MOST_NESTED:
            self.refuse(place, "it is nested too deep")
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError:
                self.refuse(place, "it holds half a character (a lone surrogate)")
        elif isinstance(value, dict):
            for name, item in value.items():
                self.check(place, name, depth + 1)
                self.check(place, item, depth + 1)
        elif isinstance(value, list):
            for item in value:
                self.check(place, item, depth + 1)
