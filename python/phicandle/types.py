"""Names for type annotations. Nothing here is needed at run time, so the package itself does not import it.

Example:
    >>> from phicandle.types import Message
    >>> message: Message = {"role": "user", "content": "Write a haiku about ice hockey"}
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict

FinishReason = Literal["stop", "length", "cancelled", "timeout", "tool_calls"]
"""Why an answer ended."""

Device = Literal["auto", "cpu", "cuda", "metal"]
"""Where to compute."""

Backend = Literal["auto", "candle", "native"]
"""What computes."""

KvDtype = Literal["f16", "q8"]
"""How keys and values are kept."""

SlidingWindow = Literal["file"] | None
"""How far attention looks back: as the file says, or without end."""

Overflow = Literal["error", "drop_oldest_turns", "truncate_middle"]
"""What to do with a prompt that leaves no room for its answer."""

StrPath = str | os.PathLike[str]
"""A path of the file system."""

Progress = bool | Callable[[str, int, int | None], None]
"""Whether to draw a progress bar, or a callable that is given (file name, bytes so far, bytes in all or `None`)."""


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


Prompt = str | Sequence[Message] | Sequence[Mapping[str, Any]] | Sequence[int]
"""A sentence, a list of messages, or a list of token ids."""

AsyncPrompts = Iterable[Prompt] | AsyncIterable[Prompt]
"""The prompts of a batch, where they may come from an async iterable too."""

BatchProgress = bool | Callable[[int, int | None], object]
"""Whether to draw a progress bar, or a callable that is given (prompts done, prompts in all or `None`)."""

Continuations = str | Sequence[str | Sequence[int]]
"""Texts or lists of token ids that follow a prompt; a `str` alone is one of them."""


class SamplingAliases(TypedDict, total=False):
    """Names that other libraries use for fields of `SamplingParams`."""

    max_new_tokens: int | None
    max_completion_tokens: int | None
    sample_len: int | None
    num_predict: int | None
    temp: float
    repetition_penalty: float
    penalty_window: int
    stop_strings: str | Sequence[str] | None
    stop_sequences: str | Sequence[str] | None
    typical: float | None
    rng_seed: int | None
    random_seed: int | None
    response_format: Mapping[str, Any] | None


class SamplingOverrides(SamplingAliases, total=False):
    """The keyword arguments of `Generator.stream` and its sisters: any field of `SamplingParams`, or an alias."""

    max_tokens: int | None
    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    typical_p: float | None
    repeat_penalty: float
    repeat_last_n: int
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float] | None
    seed: int | None
    stop: str | Sequence[str] | None
    stop_token_ids: Sequence[int] | None
    include_stop: bool
    ignore_eos: bool
    min_tokens: int
    n: int
    logprobs: int | None
    prompt_logprobs: int | None
    schema: Mapping[str, Any] | type | None
    regex: str | None
    choices: Sequence[str] | None
    grammar: str | None
    tools: Sequence[Any]
    tool_choice: str | Mapping[str, Any]
    timeout: float | None
    priority: int
    template: bool | None
    overflow: Overflow


class GeneratorAliases(TypedDict, total=False):
    """Names that other libraries use for arguments of `Generator`."""

    model_path: StrPath
    n_ctx: int | None
    num_ctx: int | None
    max_model_len: int | None
    n_threads: int | None
    num_threads: int | None
    local_files_only: bool | None
    memory_limit: int | str
