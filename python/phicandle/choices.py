"""`ChoiceStream`: several answers to one prompt while they are being written."""

from __future__ import annotations

from . import _phicandle
from .answers import Answers
from .bundle import Bundle
from .errors import PhicandleError
from .stream import Stream, chunk_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .chunk import Chunk
    from .loaded import Loaded


class ChoiceStream(Answers, Stream):
    """Several answers to one prompt while they are being written: a `Stream` whose chunks differ in `index`."""

    __slots__ = ("_bundle", "_raws")

    def __init__(self, generator: Loaded, raws: list[_phicandle.RawStream]) -> None:
        super().__init__(generator, raws[0])
        self._raws = raws
        self._bundle = Bundle()
        for index, raw in enumerate(raws):
            self._bundle.add(index, raw)

    def __next__(self) -> Chunk:
        if self._closed:
            raise StopIteration
        news = self._news(None)
        if news is None:
            raise StopIteration
        index, event = news
        chunk = chunk_of(self._raws[index], event, self._model, index)
        if chunk is None:
            raise StopIteration
        return chunk

    def _read(self, timeout: float | None) -> int:
        news = self._news(timeout)
        if len(self._bundle) == 0:
            return _phicandle.END
        return _phicandle.PENDING if news is None else _phicandle.CHUNK

    def _news(self, timeout: float | None) -> tuple[int, _phicandle._Event] | None:
        """The next event and whose it is. One answer that fails takes the others with it, and so does Ctrl-C."""
        try:
            news = self._bundle.wait(timeout)
            if news is None:
                return None
            index, event = news
            if isinstance(event, PhicandleError):
                raise event
            return index, event
        except BaseException:
            self.cancel()
            raise
