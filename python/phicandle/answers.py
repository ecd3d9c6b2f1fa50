"""`Answers`: what a stream of several answers to one prompt is, for threads and for event loops alike."""

from __future__ import annotations

from .completion import joined, read
from .stream import finished

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import _phicandle
    from .completion import Completion


class Answers:
    """The part of a stream that concerns all of its answers. It stands before the stream that it is mixed into."""

    __slots__ = ()

    _model: str
    _raws: list[_phicandle.RawStream]

    @property
    def done(self) -> bool:
        """Whether all the answers have ended."""
        return all(raw.done() for raw in self._raws)

    def cancel(self) -> None:
        """Ends all the answers now. What was written stays readable."""
        for raw in self._raws:
            raw.cancel()

    def partial(self) -> Completion:
        """Returns what has been taken of all the answers so far, without waiting."""
        return joined([read(raw, self._model) for raw in self._raws])

    def _whole(self) -> Completion:
        return joined([finished(raw, self._model) for raw in self._raws])
