"""The arguments of a batch: its prompts, with parameters for each, and who is told of its progress."""

from __future__ import annotations

from . import _phicandle
from .arguments import shown, wrong
from .errors import InvalidParameterError
from .params import SamplingParams, resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from typing import Any


class Prompts:
    """The prompts of a batch, taken one by one, and the parameters of each.

    Args:
        prompts: An iterable of prompts; an async one where `can_wait`.
        params: A `SamplingParams` for all, a sequence with one for each prompt, or `None`.
        overrides: Fields of `SamplingParams` that go before all of them.
        where: The callable, for messages.
        can_wait: Whether prompts may come from an async iterable.

    Attributes:
        total: How many there are; `None` where nobody knows before the end.
        later: The iterator of an async iterable, else `None`.

    Raises:
        InvalidParameterError: One of the arguments cannot be used, or there are not as many parameters as prompts.
    """

    def __init__(
        self, prompts: object, params: object, overrides: Mapping[str, Any], where: str, *, can_wait: bool
    ) -> None:
        self.later: AsyncIterator[object] | None = None
        self._now: Iterator[object] = iter(())
        if can_wait and hasattr(prompts, "__aiter__"):
            self.later = prompts.__aiter__()
        elif isinstance(prompts, (str, bytes, bytearray, dict)) or not hasattr(prompts, "__iter__"):
            raise InvalidParameterError(
                f"prompts is {shown(prompts)}.",
                hint=f"{where} takes an iterable of prompts, such as a list; for one prompt use generate.",
                parameter="prompts",
            )
        else:
            self._now = iter(prompts)
        self.total: int | None = len(prompts) if hasattr(prompts, "__len__") else None
        self._shared: SamplingParams | None = None
        self._each: list[SamplingParams] = []
        if params is None or isinstance(params, SamplingParams):
            self._shared = resolve(params, overrides, where)
            return
        if isinstance(params, (str, bytes, dict)) or not (
            hasattr(params, "__iter__") and hasattr(params, "__len__")
        ):
            raise wrong("params", "a SamplingParams, a sequence of them or None", params)
        for one in params:
            if not isinstance(one, SamplingParams):
                raise wrong("params", "a sequence of SamplingParams", one)
            self._each.append(resolve(one, overrides, where))
        if self.total is not None:
            self.check_count(self.total)

    def next(self) -> tuple[object] | None:
        """Returns the next prompt, alone in a tuple; `None` at the end."""
        for prompt in self._now:
            return (prompt,)
        return None

    def params(self, index: int) -> SamplingParams:
        """Returns the parameters of the prompt at `index`.

        Raises:
            InvalidParameterError: There are none for it.
        """
        if self._shared is not None:
            return self._shared
        if index >= len(self._each):
            raise self._unequal(f"more than {len(self._each)}")
        return self._each[index]

    def check_count(self, count: int) -> None:
        """Refuses other than `count` parameters, where each prompt has its own.

        Raises:
            InvalidParameterError: Their number is another.
        """
        if self._shared is None and count != len(self._each):
            raise self._unequal(str(count))

    def _unequal(self, prompts: str) -> InvalidParameterError:
        return InvalidParameterError(
            f"params has {len(self._each)} items, and there are {prompts} prompts.",
            hint="Pass one SamplingParams for each prompt, or one for all.",
            parameter="params",
        )


class Teller:
    """Tells how many prompts are done: by a bar, to a callable, or to nobody.

    Args:
        progress: `True` for a bar on standard error when that is a terminal, a callable, or `False`.
        total: How many prompts there are, if that is known.

    Raises:
        InvalidParameterError: `progress` is something else.
    """

    def __init__(self, progress: Any, total: int | None) -> None:
        if not isinstance(progress, bool) and not callable(progress):
            raise InvalidParameterError(
                f"progress must be True, False or a callable, not {shown(progress)}.",
                hint="Pass a callable that takes (prompts done, prompts in all or None).",
                parameter="progress",
            )
        self._callback: Callable[[int, int | None], object] | None = progress if callable(progress) else None
        self._bar = _phicandle.RawBar(total) if progress is True else None
        self._total = total

    def tell(self, done: int) -> None:
        """Says how many are done. What a callable raises ends the batch."""
        if self._bar is not None:
            self._bar.set(done)
        if self._callback is not None:
            self._callback(done, self._total)

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.finish()
