"""`AsyncBatch`: a `Batch` that leaves the event loop free."""

from __future__ import annotations

import asyncio

from .batch import Batch
from .bundle import SLICE
from .waker import wait_for_exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from typing import Any

    from .batch import _Answer, _Found, _Piece


class AsyncBatch(Batch):
    """A batch whose waiting is an event loop's, and whose prompts may come from an async iterable."""

    can_wait = True
    _pulled: asyncio.Future[Any] | None = None

    async def aanswers(self) -> AsyncGenerator[_Answer, None]:
        """Yields the answers, each with the index of its prompt."""
        try:
            while (found := await self._anext()) is not None:
                for answer in self._answers(found):
                    yield answer
        finally:
            await self._aclose()

    async def apieces(self) -> AsyncGenerator[_Piece, None]:
        """Yields the chunks of all the answers as they come, each with the index of its prompt."""
        try:
            while (found := await self._anext()) is not None:
                for piece in self._pieces(found):
                    yield piece
        finally:
            await self._aclose()

    async def _anext(self) -> _Found | None:
        while True:
            # The other tasks have their turn, also when the answers are ahead of their reader.
            await asyncio.sleep(0)
            if self._wants_prompt():
                self._pull()
            try:
                self._submit()
                found = self._found()
            except SystemExit:
                await wait_for_exit()
            if found is not None:
                return found
            if self._wants_prompt() and self._pulled is None:
                continue
            if self._is_over():
                return None
            await self._wait()

    def _pull(self) -> None:
        """Takes a prompt, or asks for one and takes it when it is there."""
        later = self._prompts.later
        if later is None:
            self._take_prompt(self._prompts.next())
            return
        if self._pulled is None:
            self._pulled = asyncio.ensure_future(later.__anext__())
        if self._pulled.done():
            pulled, self._pulled = self._pulled, None
            try:
                prompt = pulled.result()
            except StopAsyncIteration:
                self._take_prompt(None)
            else:
                self._take_prompt((prompt,))

    async def _wait(self) -> None:
        tasks: set[asyncio.Future[Any]] = set()
        if self._pulled is not None:
            tasks.add(self._pulled)
        if len(self._bundle):
            tasks.add(self._bundle.byte())
        elif self._queue_full:
            await asyncio.sleep(SLICE)
            self._queue_full = False
            return
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)

    async def _aclose(self) -> None:
        self._close()
        if self._pulled is not None:
            self._pulled.cancel()
            await asyncio.wait({self._pulled})
            if not self._pulled.cancelled():
                # Whatever the source of the prompts raises now comes too late for anybody.
                self._pulled.exception()
