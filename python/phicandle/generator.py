"""`Generator`: a loaded model that answers prompts."""

from __future__ import annotations

from . import _phicandle
from .batching import Batching
from .errors import ForkError
from .info import MemoryPlan
from .recipe import anchored, callback, full, options
from .scoring import Scoring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from typing_extensions import Unpack

    from .async_stream import AsyncStream
    from .chat import Chat
    from .completion import Completion
    from .params import SamplingParams
    from .stream import Stream
    from .types import (
        Backend,
        Device,
        GeneratorAliases,
        KvDtype,
        Message,
        Progress,
        Prompt,
        SamplingOverrides,
        SlidingWindow,
        StrPath,
    )


class Generator(Batching, Scoring):
    """A loaded model that answers prompts.

    One object serves any number of threads and tasks: their answers are computed together, and the GIL is free while
    the model computes. A context manager, and pickled as its arguments: unpickling loads the model again.

    Args:
        model: A path to a `.gguf` file, of a split model any part; a hub id, `owner/name:Q4_K_M`, or `owner/name` for
            the best quantisation that fits into memory, which the log names; "demo" for the small model inside the
            package; `None` = `microsoft/Phi-3-mini-4k-instruct-gguf` (2.4 GB), or what the environment variable
            `PHICANDLE_MODEL` names. A `str` that names an existing file is that file.
        filename: A file of the hub repository.
        revision: A branch, tag or commit of the hub repository; `None` = `main`.
        tokenizer: A `tokenizer.json`, or a `.gguf` whose tokenizer to use; `None` = the model file's own.
        chat_template: A Jinja chat template; `None` = the model file's own.
        device: "auto" (the CPU), "cpu", "cuda", "cuda:0" or "metal".
        backend: "native" (phicandle's own kernels, on the CPU only), "candle" (candle-transformers' models: the
            reference, and what runs on other devices), or "auto": native on the CPU, candle elsewhere.
        threads: Threads to compute with, 1 to 1024; `None` = one for each core that the process may use. Candle has
            one pool for the process, sized by `RAYON_NUM_THREADS`: another number here is only warned about in the
            log.
        context_length: Tokens that prompt and answer may hold; `None` = as many as the model and the memory allow.
        kv_dtype: How keys and values are kept: "f16", or "q8" for half the memory and a little less precision. The
            candle backend keeps 32 bits, whatever is asked.
        sliding_window: "file" = attention looks back over the file's sliding window, where it has one, and keys and
            values that have left it are given back; `None` = over everything.
        memory: Where the weights are kept: "repack" = copied in an order that is fast to read, "mmap" = left in the
            file, there at once and shared between processes, "auto" = by the memory available. The candle backend
            copies them, whatever is asked. Or the most memory to plan for, in bytes or as text ("6GB"), with "auto"
            within it; without it, that is what this process may still take.
        max_batch: Most answers that are computed together. Memory for keys and values is planned for `context_length`
            tokens in all: requests wait while the prompts of those before them need it, and where answers grow beyond
            it, the last one waits and is computed again. The candle backend writes one answer at a time, whatever is
            asked.
        max_queue: Requests that may wait; one more raises `QueueFullError`.
        prefix_cache: Whether answers whose prompts begin alike share what was computed of that. It is kept while nobody
            needs the memory, and no text depends on it. The candle backend computes every prompt, whatever is asked.
        speculation: Whether to guess at tokens where a text repeats itself, and to check several at once. No text
            depends on it. The candle backend writes token by token, whatever is asked.
        cache_dir: Folder of downloaded models; `None` = the one that huggingface_hub uses.
        token: Token for the hub; `None` = `HF_TOKEN` or the token file; "" = none. It is part of a pickle.
        offline: Never ask the hub; `None` = as `HF_HUB_OFFLINE` says.
        progress: Whether a download, or the laying out of a large model's weights, draws a progress bar when standard
            error is a terminal; or a callable that is given (file name, bytes so far, bytes in all or `None`) of
            downloads, on the calling thread.
        **aliases: Names that other libraries use: `model_path` (`model`); `n_ctx`, `num_ctx`, `max_model_len`
            (`context_length`); `n_threads`, `num_threads` (`threads`); `local_files_only` (`offline`);
            `memory_limit` (`memory`).

    Raises:
        ModelNotFoundError: No such file or repository; near names are in `candidates`.
        ModelReadError: The file cannot be read.
        DownloadError, OfflineError, GatedModelError: The hub did not give the file.
        CorruptModelError: The file breaks its format.
        UnsupportedModelError: This version would run the model wrongly, or not at all.
        TokenizerError, TemplateError: The vocabulary or the chat template cannot be used.
        DeviceError: The device is not there.
        OutOfMemoryError: The model does not fit into memory.
        InvalidParameterError: An argument is unknown, of the wrong type, or out of range.

    Example:
        >>> from phicandle import Generator
        >>> with Generator("demo") as generator:
        ...     answer = generator.generate("Write a haiku about ice hockey", temperature=0.0)
        >>> len(answer.text.splitlines())
        3
    """

    def __init__(
        self,
        model: StrPath | None = None,
        *,
        filename: str | None = None,
        revision: str | None = None,
        tokenizer: StrPath | None = None,
        chat_template: str | None = None,
        device: Device | str = "auto",
        backend: Backend = "auto",
        threads: int | None = None,
        context_length: int | None = None,
        kv_dtype: KvDtype = "f16",
        sliding_window: SlidingWindow = "file",
        memory: int | str = "auto",
        max_batch: int = 16,
        max_queue: int = 1024,
        prefix_cache: bool = True,
        speculation: bool = True,
        cache_dir: StrPath | None = None,
        token: str | None = None,
        offline: bool | None = None,
        progress: Progress = True,
        **aliases: Unpack[GeneratorAliases],
    ) -> None:
        given = {
            "model": model,
            "filename": filename,
            "revision": revision,
            "tokenizer": tokenizer,
            "chat_template": chat_template,
            "device": device,
            "backend": backend,
            "threads": threads,
            "context_length": context_length,
            "kv_dtype": kv_dtype,
            "sliding_window": sliding_window,
            "memory": memory,
            "max_batch": max_batch,
            "max_queue": max_queue,
            "prefix_cache": prefix_cache,
            "speculation": speculation,
            "cache_dir": cache_dir,
            "token": token,
            "offline": offline,
            "progress": progress,
        }
        super().__init__(anchored(full(given, aliases, _defaults(), "Generator")))
        # Imported here: a process without a generator needs no exit hook.
        from .at_exit import watch

        watch(self)

    def stream(
        self, prompt: Prompt, params: SamplingParams | None = None, /, **overrides: Unpack[SamplingOverrides]
    ) -> Stream:
        """Starts an answer and returns it as an iterator of text.

        Args:
            prompt: A sentence, which becomes one user turn of the chat template (one that begins with a control
                token of the template is taken as it is); a list of messages (`{"role": ..., "content": ...}`), in
                which an answer may bring the `token_ids` of its `Completion`, so that they are not cut anew out of
                its text; or a list of token ids.
            params: How to sample and when to end; `None` = the defaults of `SamplingParams`.
            **overrides: Fields of `SamplingParams`, or their aliases, that go before `params`.

        Returns:
            The running answer. With `n=`, chunks of all the answers come as they are written, each with its `index`;
            `result()` has all `choices`.

        Raises:
            InvalidParameterError: The prompt or a parameter cannot be used.
            ContextOverflowError: The prompt leaves no room in the context.
            TemplateError: The chat template refuses the messages.
            QueueFullError: Too many requests are waiting.
            ClosedError: The generator is closed.
            ForkError: The generator was made before a fork.

        Example:
            >>> from phicandle import Generator
            >>> generator = Generator("demo")
            >>> answer = "".join(generator.stream("Write a haiku about ice hockey", temperature=0.0))
            >>> len(answer.splitlines())
            3
        """
        return self._stream(self._submit(prompt, params, overrides, "stream"))

    def generate(
        self, prompt: Prompt, params: SamplingParams | None = None, /, **overrides: Unpack[SamplingOverrides]
    ) -> Completion:
        """Returns a whole answer.

        Args:
            prompt: As for `stream`.
            params: As for `stream`.
            **overrides: As for `stream`.

        Returns:
            The answer; with `n=`, all of them in `choices`. With `timeout=` it may be incomplete: see `finish_reason`.

        Raises:
            GenerationCancelled: The generator was closed meanwhile.
            NumericalError: The model computed something that is not a number.
            PhicandleError: As for `stream`.

        Example:
            >>> from phicandle import Generator
            >>> Generator("demo").generate("Write a haiku about ice hockey", max_tokens=3).finish_reason
            'length'
        """
        with self._stream(self._submit(prompt, params, overrides, "generate")) as stream:
            return stream.result()

    def astream(
        self, prompt: Prompt, params: SamplingParams | None = None, /, **overrides: Unpack[SamplingOverrides]
    ) -> AsyncStream:
        """Starts an answer and returns it as an async iterator of text. Call it where an event loop is running.

        Args:
            prompt: As for `stream`.
            params: As for `stream`.
            **overrides: As for `stream`.

        Returns:
            The running answer.

        Raises:
            RuntimeError: No event loop is running.
            PhicandleError: As for `stream`.

        Example:
            >>> import asyncio
            >>> from phicandle import Generator
            >>> async def main():
            ...     stream = Generator("demo").astream("Write a haiku about ice hockey", temperature=0.0)
            ...     return "".join([chunk async for chunk in stream])
            >>> len(asyncio.run(main()).splitlines())
            3
        """
        waker = self._waker()
        return self._astream(self._submit(prompt, params, overrides, "astream"), waker)

    async def agenerate(
        self, prompt: Prompt, params: SamplingParams | None = None, /, **overrides: Unpack[SamplingOverrides]
    ) -> Completion:
        """Returns a whole answer, leaving the event loop free meanwhile. Cancelling the task ends the answer.

        Args:
            prompt: As for `stream`.
            params: As for `stream`.
            **overrides: As for `stream`.

        Returns:
            The answer. With `timeout=` it may be incomplete: see `finish_reason`.

        Raises:
            PhicandleError: As for `generate`.

        Example:
            >>> import asyncio
            >>> from phicandle import Generator
            >>> asyncio.run(Generator("demo").agenerate("Write a haiku about ice", max_tokens=3)).finish_reason
            'length'
        """
        async with self.astream(prompt, params, **overrides) as stream:
            return await stream.result()

    def chat(
        self,
        system: str | None = None,
        messages: Sequence[Message] | Sequence[Mapping[str, Any]] = (),
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> Chat:
        """Begins a conversation that remembers its turns.

        Args:
            system: The system message; `None` = none.
            messages: What was said before: a list of messages (`{"role": ..., "content": ...}`).
            tools: JSON schemas of functions that the model may call, where its chat template has a place for them.

        Returns:
            The conversation. Any number of them may share this generator.

        Raises:
            InvalidParameterError: An argument cannot be used.

        Example:
            >>> from phicandle import Generator
            >>> chat = Generator("demo").chat()
            >>> answer = chat.send("Write a haiku about ice hockey")
            >>> len(chat.messages)
            2
        """
        from .chat import Chat

        return Chat(self, system, messages, tools)

    def load_chat(self, path: StrPath, *, kv: bool | None = None) -> Chat:
        """Goes on with a conversation that `Chat.save` has written: the same as `Chat.load(generator, path)`.

        Args:
            path: The file.
            kv: Whether to load its keys and values too: `None` = if they can be used, `True` = they must be.

        Returns:
            The conversation.

        Raises:
            ChatFileError: The file cannot be read, or does not hold a conversation; `place` names the key at fault.
            PhicandleError: With `kv=True`, as for `Chat.load`.

        Example:
            >>> import os, tempfile
            >>> from phicandle import Generator
            >>> generator = Generator("demo")
            >>> path = os.path.join(tempfile.mkdtemp(), "chat.json")
            >>> generator.chat("Be brief.").save(path)
            >>> generator.load_chat(path).system
            'Be brief.'
        """
        from .chat import Chat

        return Chat.load(self, path, kv=kv)

    @staticmethod
    def estimate(
        model: StrPath | None = None,
        *,
        filename: str | None = None,
        revision: str | None = None,
        context_length: int | None = None,
        device: Device | str = "auto",
        backend: Backend = "auto",
        threads: int | None = None,
        kv_dtype: KvDtype = "f16",
        sliding_window: SlidingWindow = "file",
        memory: int | str = "auto",
        cache_dir: StrPath | None = None,
        token: str | None = None,
        offline: bool | None = None,
        progress: Progress = True,
        **aliases: Unpack[GeneratorAliases],
    ) -> MemoryPlan:
        """Tells how much memory a model would take, from the header of its file alone.

        Of a model on the hub that is not in the cache, only the header is read, a few megabytes.

        Args:
            model: As for `Generator`, and so the others.
            filename: As for `Generator`.
            revision: As for `Generator`.
            context_length: As for `Generator`.
            device: As for `Generator`.
            backend: As for `Generator`.
            threads: As for `Generator`.
            kv_dtype: As for `Generator`.
            sliding_window: As for `Generator`.
            memory: As for `Generator`.
            cache_dir: As for `Generator`.
            token: As for `Generator`.
            offline: As for `Generator`.
            progress: As for `Generator`.
            **aliases: As for `Generator`.

        Returns:
            The plan, in bytes.

        Raises:
            PhicandleError: As for `Generator`, except `OutOfMemoryError`.

        Example:
            >>> from phicandle import Generator
            >>> plan = Generator.estimate("demo", context_length=256)
            >>> plan.total_bytes == plan.weights_bytes + plan.kv_bytes + plan.scratch_bytes
            True
        """
        given = {
            "model": model,
            "filename": filename,
            "revision": revision,
            "context_length": context_length,
            "device": device,
            "backend": backend,
            "threads": threads,
            "kv_dtype": kv_dtype,
            "sliding_window": sliding_window,
            "memory": memory,
            "cache_dir": cache_dir,
            "token": token,
            "offline": offline,
            "progress": progress,
        }
        recipe = full(given, aliases, _defaults(), "Generator.estimate")
        return MemoryPlan(**_phicandle.estimate(options(recipe), callback(recipe["progress"])))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self._recipe)

    def __repr__(self) -> str:
        if self._info is None:
            return "<phicandle.Generator of the parent process>"
        state = ", closed" if self._raw.is_closed() else ""
        return f"<phicandle.Generator {self._info.name!r}, context {self._info.context_length}{state}>"


def _defaults() -> dict[str, Any]:
    """The arguments of a `Generator` that was given none."""
    return {"model": None, **(Generator.__init__.__kwdefaults__ or {})}


def _rebuild(cls: type[Generator], recipe: dict[str, Any]) -> Generator:
    try:
        return cls(**recipe)
    except ForkError:
        # An object that cannot be unpickled ends the worker of a pool, and the pool waits for its answer for ever. So
        # the error comes with the first use, in the task.
        generator = cls.__new__(cls)
        generator._begin(recipe, _phicandle.RawGenerator.of_parent(), None)
        return generator
