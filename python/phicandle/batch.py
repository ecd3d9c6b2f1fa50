"""`Batch`: the prompts of one call on their way to answers, a window of them inside the engine at a time."""

from __future__ import annotations

import time
from collections import deque

from . import _phicandle
from .bundle import SLICE, Bundle
from .completion import joined
from .errors import PhicandleError, QueueFullError
from .params import each_choice
from .prompt import prepare
from .stream import chunk_of, finished

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from .batch_arguments import Prompts, Teller
    from .chunk import Chunk
    from .completion import Completion

    _Answer = tuple[int, Completion | PhicandleError]
    _Piece = tuple[int, Chunk | PhicandleError]
    _Found = tuple["_Item", int, _phicandle._Event | PhicandleError]

# Windows of answers that may wait for an earlier one where the order of the prompts is kept.
_AHEAD = 4


class _Item:
    """A prompt under way: its place, its requests, and how many of them have not ended."""

    __slots__ = ("index", "left", "prompt", "raws")

    def __init__(self, index: int, prompt: _phicandle._Prompt, requests: int) -> None:
        self.index = index
        self.left = requests
        self.prompt = prompt
        self.raws: list[_phicandle.RawStream] = []


class Batch:
    """The prompts of one call on their way to answers.

    Args:
        engine: The engine that answers.
        model: The model's name.
        prompts: The prompts and their parameters.
        window: Most requests inside the engine at a time.
        ordered: Whether answers are given in the order of the prompts.
        return_exceptions: Whether an error stands in the place of its answer; else the first one to happen is raised.
        teller: Whom to tell how many prompts are done.

    Attributes:
        can_wait: Whether prompts may come from an async iterable.
    """

    can_wait = False

    def __init__(
        self,
        engine: _phicandle.RawGenerator,
        model: str,
        prompts: Prompts,
        window: int,
        *,
        ordered: bool,
        return_exceptions: bool,
        teller: Teller,
    ) -> None:
        self._engine = engine
        self._model = model
        self._prompts = prompts
        self._window = window
        self._ordered = ordered
        self._return_exceptions = return_exceptions
        self._teller = teller
        self._bundle = Bundle()
        # Requests of prompts that were taken, and have no place in the engine yet.
        self._waiting: deque[tuple[_Item, _phicandle._Params]] = deque()
        self._running: dict[int, tuple[_Item, int]] = {}
        self._failed: deque[_Found] = deque()
        # Answers that are there before an earlier one.
        self._early: dict[int, Completion | PhicandleError] = {}
        self._keys = self._taken = self._given = self._done = 0
        self._queue_full = self._exhausted = False

    def answers(self) -> Generator[_Answer, None, None]:
        """Yields the answers, each with the index of its prompt."""
        try:
            while (found := self._next()) is not None:
                yield from self._answers(found)
        finally:
            self._close()

    def pieces(self) -> Generator[_Piece, None, None]:
        """Yields the chunks of all the answers as they come, each with the index of its prompt."""
        try:
            while (found := self._next()) is not None:
                yield from self._pieces(found)
        finally:
            self._close()

    def _next(self) -> _Found | None:
        """Waits for what happens next to a request; `None` at the end."""
        while True:
            # One prompt at a time: prompts that take long to come must not keep news waiting.
            if self._wants_prompt():
                self._take_prompt(self._prompts.next())
            self._submit()
            found = self._found()
            if found is not None:
                return found
            if self._wants_prompt():
                continue
            if self._is_over():
                return None
            if len(self._bundle):
                self._bundle.rest()
            else:
                time.sleep(SLICE)
                self._queue_full = False

    def _wants_prompt(self) -> bool:
        ahead = self._taken - self._given if self._ordered else 0
        return (
            not self._exhausted and not self._waiting and self._has_room() and ahead < _AHEAD * self._window
        )

    def _has_room(self) -> bool:
        return len(self._bundle) < self._window and not self._queue_full

    def _is_over(self) -> bool:
        return self._exhausted and not self._waiting and len(self._bundle) == 0

    def _take_prompt(self, taken: tuple[object] | None) -> None:
        """Makes requests of a prompt; `None` says that there are no more."""
        if taken is None:
            self._prompts.check_count(self._taken)
            self._exhausted = True
            return
        index = self._taken
        params = self._prompts.params(index)
        self._taken += 1
        item = _Item(index, ("ids", []), params.n)
        try:
            item.prompt = prepare(taken[0], params.template)
        except PhicandleError as error:
            self._failed.append((item, 0, error))
            return
        self._waiting.extend((item, request) for request in each_choice(params))

    def _submit(self) -> None:
        """Gives the engine what it has room for."""
        while self._waiting and self._has_room():
            item, request = self._waiting[0]
            try:
                raw = self._engine.submit(item.prompt, request)
            except QueueFullError:
                # Tried again when a request of this batch has ended; without one, after a while.
                self._queue_full = True
                return
            except PhicandleError as error:
                self._drop(item)
                self._failed.append((item, 0, error))
                continue
            self._waiting.popleft()
            self._keys += 1
            self._running[self._keys] = item, len(item.raws)
            item.raws.append(raw)
            self._bundle.add(self._keys, raw)

    def _found(self) -> _Found | None:
        """Looks what has happened, without waiting, and notes it."""
        if self._failed:
            return self._failed.popleft()
        news = self._bundle.take()
        if news is None:
            return None
        key, event = news
        item, choice = self._running[key]
        if isinstance(event, PhicandleError):
            del self._running[key]
            self._drop(item)
            self._queue_full = False
        elif event[0] != _phicandle.CHUNK:
            del self._running[key]
            item.left -= 1
            self._queue_full = False
        return item, choice, event

    def _drop(self, item: _Item) -> None:
        """Ends the requests of a prompt that has failed."""
        self._waiting = deque(waiting for waiting in self._waiting if waiting[0] is not item)
        for key in [key for key, (owner, _) in self._running.items() if owner is item]:
            del self._running[key]
            self._bundle.drop(key)

    def _answers(self, found: _Found) -> Sequence[_Answer]:
        """Returns the answers that are to be given out now."""
        item, _, event = found
        outcome: Completion | PhicandleError
        if isinstance(event, PhicandleError):
            outcome = event
        elif item.left:
            return ()
        else:
            try:
                outcome = joined([finished(raw, self._model) for raw in item.raws])
            except PhicandleError as error:
                outcome = error
        self._settle(item, outcome if isinstance(outcome, PhicandleError) else None)
        if not self._ordered:
            return ((item.index, outcome),)
        self._early[item.index] = outcome
        now = []
        while self._given in self._early:
            now.append((self._given, self._early.pop(self._given)))
            self._given += 1
        return now

    def _pieces(self, found: _Found) -> Sequence[_Piece]:
        """Returns what is to be given out now: a chunk, or an error."""
        item, choice, event = found
        if not isinstance(event, PhicandleError):
            try:
                chunk = chunk_of(item.raws[choice], event, self._model, choice)
            except PhicandleError as error:
                self._drop(item)
                event = error
            else:
                if not item.left:
                    self._settle(item, None)
                return () if chunk is None else ((item.index, chunk),)
        self._settle(item, event)
        return ((item.index, event),)

    def _settle(self, item: _Item, error: PhicandleError | None) -> None:
        """Notes that a prompt is done.

        Raises:
            PhicandleError: `error`, unless it is to be returned.
        """
        self._done += 1
        self._teller.tell(self._done)
        if error is not None and not self._return_exceptions:
            raise _noted(error, item.index)

    def _close(self) -> None:
        self._waiting.clear()
        self._bundle.close()
        self._teller.close()


def _noted(error: PhicandleError, index: int) -> PhicandleError:
    note = f"It is the prompt at index {index} of the batch."
    # Python 3.10 has no `add_note`, but this is all that it does.
    error.__dict__["__notes__"] = [*getattr(error, "__notes__", ()), note]
    return error
