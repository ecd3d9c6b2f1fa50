"""What a type checker makes of the package. Executed by pytest and read by mypy: each `assert_type` holds for both."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, TypeVar

from phicandle import (
    AsyncStream,
    Chunk,
    Completion,
    Generator,
    MemoryPlan,
    Metrics,
    ModelInfo,
    PhicandleError,
    SamplingParams,
    Stream,
    Usage,
)

if TYPE_CHECKING:
    from typing_extensions import assert_type

    from phicandle.types import FinishReason, Message
else:
    Value = TypeVar("Value")

    def assert_type(value: Value, _: object) -> Value:
        return value


PROMPT = "Write a haiku about ice hockey"


def takes_iterator(chunks: Iterator[Chunk]) -> list[str]:
    return list(chunks)


def takes_context(stream: AbstractContextManager[Stream]) -> None:
    with stream:
        pass


def test_sync(tiny: Generator) -> None:
    stream = assert_type(tiny.stream(PROMPT, max_tokens=4, ignore_eos=True), Stream)
    for chunk in stream:
        assert_type(chunk, Chunk)
        assert_type(chunk.token_ids, "tuple[int, ...]")
        assert_type(chunk.usage, "Usage | None")
        assert isinstance(chunk, str)
    answer = assert_type(stream.result(), Completion)
    reason: FinishReason | None = answer.finish_reason
    assert reason == "length"
    assert_type(answer.usage, Usage)
    assert_type(answer.metrics, Metrics)
    assert_type(str(answer), str)
    assert_type(tiny.generate(PROMPT, SamplingParams(seed=1), max_new_tokens=2), Completion)
    assert "".join(takes_iterator(tiny.stream(PROMPT, max_tokens=2))) is not None
    takes_context(tiny.stream(PROMPT, max_tokens=2))


def test_prompts(tiny: Generator) -> None:
    messages: list[Message] = [{"role": "user", "content": PROMPT}]
    plain = [{"role": "user", "content": PROMPT}]
    tiny.generate(messages, max_tokens=1)
    tiny.generate(plain, max_tokens=1)
    tiny.generate([300, 301], max_tokens=1)
    assert_type(tiny.tokenizer.apply_chat_template(messages), str)
    assert_type(tiny.tokenizer.apply_chat_template(messages, tokenize=True), "list[int]")


def test_facts(tiny: Generator) -> None:
    assert_type(tiny.info, ModelInfo)
    assert_type(tiny.info.memory, MemoryPlan)
    assert_type(SamplingParams().replace(temp=0.5), SamplingParams)
    assert_type(tiny.tokenizer.encode("ice"), "list[int]")
    assert_type(tiny.tokenizer.eos_ids, "frozenset[int]")


def test_async(tiny: Generator) -> None:
    async def first(chunks: AsyncIterator[Chunk]) -> Chunk:
        return await chunks.__anext__()

    async def within(stream: AbstractAsyncContextManager[AsyncStream]) -> str:
        async with stream as opened:
            return assert_type(await first(opened), Chunk)

    async def main() -> None:
        assert await within(tiny.astream(PROMPT, max_tokens=4, ignore_eos=True))
        assert_type(await tiny.agenerate(PROMPT, max_tokens=1), Completion)

    asyncio.run(main())


def test_batches(tiny: Generator) -> None:
    prompts = [PROMPT, PROMPT]
    assert_type(tiny.batch(prompts, max_tokens=1), "list[Completion]")
    assert_type(tiny.batch(iter(prompts), [SamplingParams(max_tokens=1)] * 2, seed=1), "list[Completion]")
    mixed = assert_type(
        tiny.batch(prompts, max_tokens=1, return_exceptions=True), "list[Completion | PhicandleError]"
    )
    assert [answer.text for answer in mixed if not isinstance(answer, PhicandleError)]
    for index, answer in tiny.batch_iter(prompts, ordered=True, max_tokens=1):
        assert_type(index, int)
        assert_type(answer, Completion)
    with contextlib.closing(tiny.batch_stream(prompts, SamplingParams(max_tokens=1))) as pieces:
        for _, chunk in pieces:
            assert_type(chunk, Chunk)
    for _, piece in tiny.batch_stream(prompts, max_tokens=1, return_exceptions=True):
        assert_type(piece, "Chunk | PhicandleError")
    assert_type(tiny.generate(PROMPT, n=2, max_tokens=1).choices, "tuple[Completion, ...]")

    async def main() -> None:
        async def source() -> AsyncIterator[str]:
            yield PROMPT

        assert_type(await tiny.abatch(source(), max_tokens=1), "list[Completion]")
        async for _, answer in tiny.abatch_iter(prompts, max_tokens=1):
            assert_type(answer, Completion)
        async for _, chunk in tiny.abatch_stream(source(), max_tokens=1):
            assert_type(chunk, Chunk)

    asyncio.run(main())


def test_mistakes_are_found_by_mypy() -> None:
    # An ignore that nothing needs fails `mypy --strict`.
    if TYPE_CHECKING:
        SamplingParams(max_tokens="5")  # type: ignore[arg-type]
        SamplingParams(max_token=5)  # type: ignore[call-arg]
        Generator("demo").generate(PROMPT, temprature=1.0)  # type: ignore[call-arg]
        Generator("demo").generate(5)  # type: ignore[arg-type]
        Generator("demo").batch([PROMPT], temprature=1.0)  # type: ignore[call-overload]
        Generator("demo").batch([5])  # type: ignore[list-item]
        Generator("demo", device=5)  # type: ignore[arg-type]
        Completion("x").text = "y"
