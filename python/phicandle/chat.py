"""`Chat`: a conversation that remembers its turns."""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress

from . import chat_file
from .arguments import text, wrong
from .chat_stream import ChatStream
from .completion import Dropped, missing, read
from .errors import (
    ChatBusyError,
    ChatFileError,
    CorruptModelError,
    ForkError,
    GenerationTimeout,
    InvalidParameterError,
    ModelReadError,
    PhicandleError,
)
from .params import SamplingParams, resolve
from .prompt import messages_json, prepare, tools_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Any

    from typing_extensions import Self, Unpack

    from . import _phicandle
    from .chat_async_stream import ChatAsyncStream
    from .completion import Completion
    from .generator import Generator
    from .types import Message, SamplingOverrides, StrPath

# Keys of a message that are the Chat's own: the template does not see them, and `messages` shows the first one only.
MARK = "finish_reason"
IDS = "token_ids"


class Chat:
    """A conversation that remembers its turns. Made by `Generator.chat`.

    A turn is what the user says with all that follows it. It becomes part of the conversation when its answer ends;
    an error leaves the conversation as it was. Turns come one after the other: using a Chat from a second thread or
    task while an answer is being written raises `ChatBusyError`. To answer several at once, `fork` it.

    Every prompt is the whole conversation in the model's chat template, so it begins with what the turn before has
    already computed. Answers keep the token ids that the model wrote, in place of those that their text would be cut
    into.

    Args:
        generator: What answers.
        system: The system message; `None` = none.
        messages: What was said before: a list of `{"role": ..., "content": ...}`. A system message at its beginning
            becomes `system`, if that is `None`.
        tools: JSON schemas of functions that the model may call, where its chat template has a place for them.

    Raises:
        InvalidParameterError: An argument cannot be used.

    Example:
        >>> from phicandle import Generator
        >>> with Generator("demo") as generator:
        ...     chat = generator.chat()
        ...     first = chat.send("Write a haiku about ice hockey")
        ...     second = chat.send("Write a haiku about rain", temperature=0.0)
        >>> [message["role"] for message in chat.messages]
        ['user', 'assistant', 'user', 'assistant']
    """

    __slots__ = (
        "__weakref__",
        "_dropped",
        "_generator",
        "_lock",
        "_messages",
        "_open",
        "_system",
        "_tools",
    )

    def __init__(
        self,
        generator: Generator,
        system: str | None = None,
        messages: Sequence[Message] | Sequence[Mapping[str, Any]] = (),
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self._generator = generator
        # The same thread may come again: when a forgotten stream is collected while it holds the lock.
        self._lock = threading.RLock()
        self._open: OpenTurn | None = None
        self._dropped = Dropped()
        self._tools = tools_json(tools)
        self._messages: list[dict[str, Any]] = _copied(messages)
        if system is None and self._messages and self._messages[0].keys() == {"role", "content"}:
            first = self._messages[0]
            if first["role"] == "system":
                system = first["content"]
                del self._messages[0]
        self._system = None if system is None else text("system", system)

    def send(
        self,
        said: str | Mapping[str, Any],
        params: SamplingParams | None = None,
        /,
        **overrides: Unpack[SamplingOverrides],
    ) -> Completion:
        """Says something and returns the whole answer.

        Args:
            said: What the user says; or a message of another role, such as the result of a tool.
            params: How to sample and when to end; `None` = the defaults of `SamplingParams`, but to the end of the
                turn: `max_tokens=None`.
            **overrides: Fields of `SamplingParams`, or their aliases, that go before `params`. With
                `overflow="drop_oldest_turns"` a conversation that is too long goes on without its oldest turns:
                `dropped` tells how many; the Chat keeps them.

        Returns:
            The answer. One that `timeout=` or `max_tokens=` cut short is marked in `messages`, and its text kept, if it
            has any.

        Raises:
            ChatBusyError: An answer of this Chat is being written.
            ContextOverflowError: The conversation leaves no room in the context.
            InvalidParameterError: The message or a parameter cannot be used; `n` is not 1.
            PhicandleError: As for `Generator.generate`. After any error, Ctrl-C included, the conversation is as it
                was.

        Example:
            >>> from phicandle import Generator
            >>> chat = Generator("demo").chat()
            >>> answer = chat.send("Write a haiku about ice hockey", temperature=0.0)
            >>> chat.messages[-1] == {"role": "assistant", "content": answer.text}
            True
        """
        turn = self._begin(said, params, overrides, "send")
        with ChatStream(self._generator, turn) as stream:
            try:
                return stream.result()
            except BaseException:
                turn.forget()
                raise

    def stream(
        self,
        said: str | Mapping[str, Any],
        params: SamplingParams | None = None,
        /,
        **overrides: Unpack[SamplingOverrides],
    ) -> ChatStream:
        """Says something and returns the answer as an iterator of text.

        The turn becomes part of the conversation when the stream ends. A stream that is cancelled, closed, left by
        `break`, or runs out of time, leaves the text that was taken from it, marked in `messages`; without any text
        it leaves the conversation as it was. A stream that is kept and neither read to its end nor closed keeps the
        Chat busy.

        Args:
            said: As for `send`.
            params: As for `send`.
            **overrides: As for `send`.

        Returns:
            The running answer, a `Stream`.

        Raises:
            PhicandleError: As for `send`.

        Example:
            >>> from phicandle import Generator
            >>> chat = Generator("demo").chat()
            >>> answer = "".join(chat.stream("Write a haiku about ice hockey"))
            >>> chat.messages[-1]["content"] == answer
            True
        """
        return ChatStream(self._generator, self._begin(said, params, overrides, "stream"))

    def astream(
        self,
        said: str | Mapping[str, Any],
        params: SamplingParams | None = None,
        /,
        **overrides: Unpack[SamplingOverrides],
    ) -> ChatAsyncStream:
        """Says something and returns the answer as an async iterator. Call it where an event loop is running.

        Args:
            said: As for `send`.
            params: As for `send`.
            **overrides: As for `send`.

        Returns:
            The running answer, an `AsyncStream`; its turn becomes part of the conversation as that of `stream` does.

        Raises:
            RuntimeError: No event loop is running.
            PhicandleError: As for `send`.

        Example:
            >>> import asyncio
            >>> from phicandle import Generator
            >>> async def main():
            ...     stream = Generator("demo").chat().astream("Write a haiku about ice hockey", temperature=0.0)
            ...     return "".join([chunk async for chunk in stream])
            >>> len(asyncio.run(main()).splitlines())
            3
        """
        from .chat_async_stream import ChatAsyncStream

        waker = self._generator._waker()
        return ChatAsyncStream(self._generator, self._begin(said, params, overrides, "astream"), waker)

    async def asend(
        self,
        said: str | Mapping[str, Any],
        params: SamplingParams | None = None,
        /,
        **overrides: Unpack[SamplingOverrides],
    ) -> Completion:
        """Says something and returns the whole answer, leaving the event loop free.

        Args:
            said: As for `send`.
            params: As for `send`.
            **overrides: As for `send`.

        Returns:
            The answer, as `send` does.

        Raises:
            PhicandleError: As for `send`.
            asyncio.CancelledError: The task was cancelled, and the answer with it; the conversation is as it was.

        Example:
            >>> import asyncio
            >>> from phicandle import Generator
            >>> asyncio.run(Generator("demo").chat().asend("Write a haiku about ice", max_tokens=3)).finish_reason
            'length'
        """
        async with self.astream(said, params, **overrides) as stream:
            try:
                return await stream.result()
            except BaseException:
                stream._turn.forget()
                raise

    def fork(self) -> Chat:
        """Returns a Chat with the same conversation that goes on independently.

        An answer that is being written is not part of it.

        Example:
            >>> from phicandle import Generator
            >>> chat = Generator("demo").chat("Be brief.")
            >>> other = chat.fork()
            >>> answer = other.send("Write a haiku about ice hockey", max_tokens=3)
            >>> len(chat.messages), len(other.messages)
            (0, 2)
        """
        with self._lock:
            self._settle()
            other = Chat(self._generator, self._system)
            other._tools = self._tools
            other._messages = list(self._messages)
            other._dropped = self._dropped
            return other

    def undo(self) -> list[dict[str, Any]]:
        """Takes the last turn off: the last message of the user with all that follows it.

        Returns:
            The messages of that turn, as `messages` shows them; none when the user has said nothing.

        Raises:
            ChatBusyError: An answer of this Chat is being written.

        Example:
            >>> from phicandle import Generator
            >>> chat = Generator("demo").chat()
            >>> answer = chat.send("Write a haiku about ice hockey", max_tokens=3)
            >>> chat.undo()[0]["content"], chat.messages
            ('Write a haiku about ice hockey', [])
        """
        with self._lock:
            self._check_idle()
            starts = [at for at, message in enumerate(self._messages) if message["role"] == "user"]
            from_here = starts[-1] if starts else len(self._messages)
            turn = self._messages[from_here:]
            del self._messages[from_here:]
            return [_shown(message) for message in turn]

    @property
    def messages(self) -> list[dict[str, Any]]:
        """What was said, without the system message: a copy.

        An answer that did not end its turn says why under `"finish_reason"`: "length", "cancelled" or "timeout".
        """
        with self._lock:
            self._settle()
            return [_shown(message) for message in self._messages]

    @property
    def system(self) -> str | None:
        """The system message. It may be set between turns, for the prompts that follow."""
        return self._system

    @system.setter
    def system(self, system: str | None) -> None:
        checked = None if system is None else text("system", system)
        with self._lock:
            self._check_idle()
            self._system = checked

    @property
    def dropped(self) -> Dropped:
        """What the last prompt left out of the conversation, as `overflow=` allows."""
        return self._dropped

    def save(self, path: StrPath, *, kv: bool = False) -> int | None:
        """Writes the conversation to a file: JSON that `load` reads.

        The file takes the place of an old one when it is complete, never half-written. It holds the text of the
        conversation, the token ids of the answers and the tools; nothing of the model but its name.

        Args:
            path: The file.
            kv: Save the keys and values too, in a second file, `path` with `.kv` at its end, so that the first turn
                after loading does not read the conversation again. It takes as much room as they do in memory
                (`MemoryPlan.kv_bytes` for a whole context), and is of use with the same model file, `kv_dtype` and
                `sliding_window` only, which is checked by a SHA-256; the first of a model takes as long as reading
                its file.

        Returns:
            With `kv`, of how many tokens the keys and values were saved: as many as the generator still has of this
            conversation, 0 where it keeps none (`prefix_cache=False`, the `candle` backend). Else `None`.

        Raises:
            ChatFileError: A file cannot be written.
            PhicandleError: The generator is closed, or the model's file was changed.

        Example:
            >>> import os, tempfile
            >>> from phicandle import Generator
            >>> chat = Generator("demo").chat("Be brief.")
            >>> path = os.path.join(tempfile.mkdtemp(), "chat.json")
            >>> chat.save(path)
            >>> Chat.load(Generator("demo"), path).system
            'Be brief.'
        """
        with self._lock:
            self._settle()
            messages = list(self._messages)
            system = self._system
            prompt = self._prompt()
        known = 0
        if kv and messages:
            known = self._save_prefix(prompt, path)
        saved = chat_file.Saved(system, messages, json.loads(self._tools), known > 0)
        chat_file.write(path, self._generator.info.name, saved)
        return known if kv else None

    @classmethod
    def load(cls, generator: Generator, path: StrPath, *, kv: bool | None = None) -> Chat:
        """Reads a conversation that `save` has written, to go on with it.

        Another model may go on with it too: the text is the same, and token ids are used only where they spell it.

        Args:
            generator: What answers.
            path: The file.
            kv: Whether to load the keys and values that were saved with it: `None` = if they can be used; the log says
                why where they cannot, and the conversation is read again, which gives the same answers. `True` = that
                is an error; `False` = never.

        Returns:
            The conversation.

        Raises:
            ChatFileError: The file cannot be read, or does not hold a conversation; `place` names the key at fault.
                With `kv=True`, it was saved without keys and values.
            ModelReadError, CorruptModelError, InvalidParameterError: With `kv=True`, the keys and values are missing,
                damaged, or those of another model.
        """
        saved = chat_file.read(path)
        chat = cls(generator, saved.system, (), saved.tools)
        chat._messages = saved.messages
        if kv and not saved.kv:
            raise ChatFileError(
                "The chat was saved without its keys and values.",
                hint="Load it without kv=True; save it with kv=True to have them next time.",
                path=os.fspath(path),
            )
        if saved.kv and kv is not False:
            try:
                generator._raw.load_prefix(chat_file.beside(path))
            except (ModelReadError, CorruptModelError, InvalidParameterError) as error:
                if kv:
                    raise
                import logging

                logging.getLogger("phicandle").warning(
                    "%s The conversation will be read again.", error.args[0]
                )
        return chat

    def close(self) -> None:
        """Ends an answer that is being written; what was taken of it stays. The Chat can go on."""
        with self._lock:
            turn = self._open
            if turn is not None and turn.started():
                turn.raw.cancel()
            self._settle()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError(
            "A Chat cannot be pickled: its model would be loaded again. Save it, or send its messages."
        )

    def __repr__(self) -> str:
        state = ", answering" if self._open is not None else ""
        return f"<phicandle.Chat with {self._generator.info.name!r}, {len(self._messages)} messages{state}>"

    def _begin(
        self,
        said: str | Mapping[str, Any],
        params: SamplingParams | None,
        overrides: SamplingOverrides,
        where: str,
    ) -> OpenTurn:
        resolved = resolve(SamplingParams(max_tokens=None) if params is None else params, overrides, where)
        if resolved.n != 1:
            raise wrong("n", "1 in a chat, which goes on from one answer", resolved.n)
        if isinstance(said, str):
            said = {"role": "user", "content": prepare(said)[1]}
        (message,) = _copied([said])
        turn = OpenTurn(self, message)
        with self._lock:
            self._check_idle()
            self._open = turn
            prompt = self._prompt(message)
        try:
            turn.raw = self._generator._raw.submit(prompt, resolved.raw())
        except BaseException:
            turn.forget()
            raise
        self._dropped = missing(turn.raw)
        return turn

    def _save_prefix(self, prompt: _phicandle._Prompt, path: StrPath) -> int:
        try:
            # What the last prompt left out, the generator does not know either.
            return self._generator._raw.save_prefix(prompt, self._dropped.turns, chat_file.beside(path))
        except InvalidParameterError as error:
            if error.parameter != "path":
                raise
            raise ChatFileError(str(error.args[0]), hint=error.hint, path=os.fspath(path)) from error

    def _prompt(self, *more: dict[str, Any]) -> _phicandle._Prompt:
        system = [] if self._system is None else [{"role": "system", "content": self._system}]
        whole = [*system, *self._messages, *more]
        sent = [{key: value for key, value in item.items() if key != MARK} for item in whole]
        written = json.dumps(sent, ensure_ascii=False)
        return ("messages", written) if self._tools == "[]" else ("with_tools", (written, self._tools))

    def _settle(self) -> None:
        """Ends a turn whose stream was cancelled and is not read any more."""
        turn = self._open
        if turn is not None and turn.cancelled():
            turn.keep()

    def _check_idle(self) -> None:
        self._settle()
        if self._open is not None:
            raise ChatBusyError(
                "An answer of this Chat is being written.",
                hint="Read its stream to the end, or close it or the Chat; to ask several things at once, fork() it.",
            )


class OpenTurn:
    """A turn whose answer is being written. For phicandle's own use."""

    __slots__ = ("_chat", "_message", "raw")

    # There as soon as the engine has taken the prompt.
    raw: _phicandle.RawStream

    def __init__(self, chat: Chat, message: dict[str, Any]) -> None:
        self._chat = chat
        self._message = message

    def started(self) -> bool:
        """Whether the engine has taken the prompt."""
        return hasattr(self, "raw")

    def cancelled(self) -> bool:
        """Whether the answer was cancelled, by whomever."""
        return self.started() and self.raw.cancelled()

    def keep(self) -> None:
        """Makes the turn part of the conversation, with what was taken of the answer; once."""
        chat = self._chat
        try:
            answer = read(self.raw, "")
        except ForkError:
            # The turn stays in the parent, and so may a thread that holds the lock.
            return
        except PhicandleError:
            self.forget()
            return
        reason = answer.finish_reason or "cancelled"
        with chat._lock:
            if chat._open is not self:
                return
            chat._open = None
            if not answer.text and reason in ("cancelled", "timeout"):
                return
            said: dict[str, Any] = {"role": "assistant", "content": answer.text, IDS: list(answer.token_ids)}
            if reason != "stop":
                said[MARK] = reason
            chat._messages += [self._message, said]

    def forget(self) -> None:
        """Leaves the conversation as it was before the turn."""
        with self._chat._lock:
            if self._chat._open is self:
                self._chat._open = None

    def abandon(self) -> None:
        """Ends the answer, of which nobody wants more: `break` comes to this."""
        # There may be nothing left to do it with when the interpreter ends.
        with suppress(Exception):
            self.raw.cancel()
            self.keep()

    def __enter__(self) -> None:
        """Goes around each wait for the answer, whoever waits."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, (StopIteration, StopAsyncIteration)) or (error is None and self.raw.done()):
            self.keep()
        # One whose time to wait is over may wait again.
        elif isinstance(error, Exception) and not isinstance(error, GenerationTimeout):
            self.forget()


def _copied(messages: object) -> list[dict[str, Any]]:
    if hasattr(messages, "__len__") and not len(messages):
        return []
    copied: list[dict[str, Any]] = json.loads(messages_json(messages))
    return copied


def _shown(message: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(
        json.dumps({key: value for key, value in message.items() if key != IDS})
    )
    return shown
