"""`Loaded`: a loaded model and its engine, which all the methods of a `Generator` stand on."""

from __future__ import annotations

from . import _phicandle
from .errors import InvalidParameterError
from .info import EngineStats, model_info
from .params import each_choice, resolve
from .prompt import prepare
from .recipe import callback, options
from .stream import Stream
from .tokenizer import Tokenizer

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    import weakref
    from types import TracebackType
    from typing import Any

    from typing_extensions import Self

    from .async_stream import AsyncStream
    from .info import ModelInfo
    from .params import SamplingParams
    from .types import Prompt, SamplingOverrides
    from .waker import LoopWaker


class Loaded:
    """A loaded model and its engine.

    `Generator` is the class for users; its methods are in the files that their subjects name.

    Args:
        recipe: All the arguments of a `Generator` under their own names.
    """

    def __init__(self, recipe: dict[str, Any]) -> None:
        raw = _phicandle.RawGenerator.load(options(recipe), callback(recipe["progress"]))
        self._begin(recipe, raw, model_info(raw.info()))

    def _begin(self, recipe: dict[str, Any], raw: _phicandle.RawGenerator, info: ModelInfo | None) -> None:
        self._recipe = recipe
        self._raw = raw
        self._info = info
        self._wakers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopWaker] | None = None

    def close(self) -> None:
        """Ends every running answer and frees the model. Closing twice does nothing.

        Streams that are still read raise `GenerationCancelled` with what they have; new calls raise `ClosedError`.

        Example:
            >>> from phicandle import Generator
            >>> generator = Generator("demo")
            >>> generator.close()
        """
        self._raw.close()
        for loop, waker in list((self._wakers or {}).items()):
            waker.close_in(loop)

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer. It stays usable after `close`."""
        return Tokenizer(self._raw.tokenizer())

    @property
    def info(self) -> ModelInfo:
        """What was loaded, and how."""
        if self._info is None:
            self._info = model_info(self._raw.info())
        return self._info

    @property
    def stats(self) -> EngineStats:
        """What the generator is doing now, and what it has done."""
        return EngineStats(**self._raw.stats())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _submit(
        self, prompt: Prompt, params: SamplingParams | None, overrides: SamplingOverrides, where: str
    ) -> list[_phicandle.RawStream]:
        """Starts an answer, or several with `n=`: all of them or none."""
        resolved = resolve(params, overrides, where)
        asked = each_choice(resolved)
        if len(asked) > 1:
            self._check_choices(len(asked))
        prepared = prepare(prompt, resolved.template)
        raws: list[_phicandle.RawStream] = []
        try:
            for request in asked:
                raws.append(self._raw.submit(prepared, request))  # noqa: PERF401 - those before a failure are cancelled
        except BaseException:
            for raw in raws:
                raw.cancel()
            raise
        return raws

    def _check_choices(self, n: int) -> None:
        most = self._recipe["max_batch"] + self._recipe["max_queue"]
        if n > most:
            raise InvalidParameterError(
                f"n is {n}, and this generator takes in {most} requests at once: max_batch and max_queue together.",
                hint="Ask for fewer answers, use batch(), or make the Generator with a larger max_queue=.",
                parameter="n",
            )

    def _stream(self, raws: list[_phicandle.RawStream]) -> Stream:
        if len(raws) == 1:
            return Stream(self, raws[0])
        # Imported here: sockets would slow the import of the package.
        from .choices import ChoiceStream

        return ChoiceStream(self, raws)

    def _astream(self, raws: list[_phicandle.RawStream], waker: LoopWaker) -> AsyncStream:
        from .async_stream import AsyncChoiceStream, AsyncStream

        return AsyncStream(self, raws[0], waker) if len(raws) == 1 else AsyncChoiceStream(self, raws, waker)

    def _waker(self) -> LoopWaker:
        import asyncio
        import weakref

        from .waker import LoopWaker

        loop = asyncio.get_running_loop()
        if self._wakers is None:
            self._wakers = weakref.WeakKeyDictionary()
        waker = self._wakers.get(loop)
        if waker is None:
            waker = self._wakers[loop] = LoopWaker()
        return waker
