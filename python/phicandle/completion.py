"""`Completion`: a whole answer, with what it cost."""

from __future__ import annotations

from .likelihood import TokenLogprob, openai_chat, openai_text, token_logprobs
from .record import Record, restore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from . import _phicandle
    from .types import FinishReason


class Usage(Record):
    """Tokens read and written for one answer.

    Args:
        prompt_tokens: Tokens of the prompt.
        completion_tokens: Tokens written, the one that ended the turn included.
        cached_tokens: Tokens of the prompt that did not have to be computed again.

    Attributes:
        total_tokens: `prompt_tokens + completion_tokens`.

    Example:
        >>> from phicandle import Usage
        >>> Usage(prompt_tokens=3, completion_tokens=4).total_tokens
        7
    """

    __slots__ = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens")  # noqa: RUF023 - the order of the fields

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int

    def __init__(self, *, prompt_tokens: int = 0, completion_tokens: int = 0, cached_tokens: int = 0) -> None:
        self._fill(
            {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
                "cached_tokens": cached_tokens,
            }
        )


class Dropped(Record):
    """What was left out of a prompt, as `overflow=` allows. False when that is nothing.

    Args:
        turns: Whole turns, the oldest of the conversation.
        tokens: By how many tokens the prompt became shorter.

    Example:
        >>> from phicandle import Generator
        >>> with Generator("demo", context_length=128) as generator:
        ...     answer = generator.generate("ice " * 500, max_tokens=16, overflow="truncate_middle")
        >>> bool(answer.dropped), answer.usage.prompt_tokens <= 112
        (True, True)
    """

    __slots__ = ("turns", "tokens")  # noqa: RUF023 - the order of the fields

    turns: int
    tokens: int

    def __init__(self, *, turns: int = 0, tokens: int = 0) -> None:
        self._fill({"turns": turns, "tokens": tokens})

    def __bool__(self) -> bool:
        return bool(self.turns or self.tokens)


class Metrics(Record):
    """Times and sizes of one answer: seconds (`_s`), tokens per second (`_tps`) and bytes.

    Args:
        queue_s: From the call to the start of the work, in seconds.
        load_s: Spent on loading the model that answered, in seconds.
        ttft_s: From the call to the first token, in seconds.
        prefill_s: Spent on reading the prompt, in seconds.
        decode_s: Spent on writing, in seconds.
        total_s: From the call to the end, in seconds.
        prefill_tps: Tokens of the prompt read per second.
        decode_tps: Tokens written per second.
        accepted_guesses: Tokens that were guessed ahead and kept.
        kv_bytes: Memory of the keys and values of this answer, in bytes.
        peak_rss: Most memory that the process has held, in bytes; `None` where the system does not say.

    Example:
        >>> from phicandle import Generator
        >>> with Generator("demo") as generator:
        ...     generator.generate("Write a haiku about ice hockey").metrics.total_s > 0
        True
    """

    __slots__ = (  # noqa: RUF023 - the order of the fields
        "queue_s",
        "load_s",
        "ttft_s",
        "prefill_s",
        "decode_s",
        "total_s",
        "prefill_tps",
        "decode_tps",
        "accepted_guesses",
        "kv_bytes",
        "peak_rss",
    )

    queue_s: float
    load_s: float
    ttft_s: float
    prefill_s: float
    decode_s: float
    total_s: float
    prefill_tps: float
    decode_tps: float
    accepted_guesses: int
    kv_bytes: int
    peak_rss: int | None

    def __init__(
        self,
        *,
        queue_s: float = 0.0,
        load_s: float = 0.0,
        ttft_s: float = 0.0,
        prefill_s: float = 0.0,
        decode_s: float = 0.0,
        total_s: float = 0.0,
        prefill_tps: float = 0.0,
        decode_tps: float = 0.0,
        accepted_guesses: int = 0,
        kv_bytes: int = 0,
        peak_rss: int | None = None,
    ) -> None:
        self._fill(
            {
                "queue_s": queue_s,
                "load_s": load_s,
                "ttft_s": ttft_s,
                "prefill_s": prefill_s,
                "decode_s": decode_s,
                "total_s": total_s,
                "prefill_tps": prefill_tps,
                "decode_tps": decode_tps,
                "accepted_guesses": accepted_guesses,
                "kv_bytes": kv_bytes,
                "peak_rss": peak_rss,
            }
        )


class Completion(Record):
    """A whole answer. `str(completion)` is its text.

    Args:
        text: The answer.
        token_ids: The tokens written, the one that ended the turn included.
        finish_reason: "stop" (end of turn, or a stop string or id), "length" (`max_tokens`, or the context is full),
            "cancelled", "timeout"; `None` for an answer still being written (`Stream.partial`).
        stop_reason: The stop string or the token id that ended the answer, for "stop"; else `None`.
        usage: Tokens read and written.
        metrics: Times taken.
        seed: The seed that repeats this answer; `None` while it is still being written.
        model: The model's name.
        logprobs: With `logprobs=`, how likely each of `token_ids` was; else `None`.
        prompt_logprobs: With `prompt_logprobs=`, how likely each token of the prompt was, the first one `None` as it
            follows nothing; else `None`.
        dropped: What `overflow=` left out of the prompt.
        choices: With `n=`, all the answers. Everything else here is that of the first one, except that `usage` counts
            the tokens written of all.

    Attributes:
        parsed: `None` in this version.
        tool_calls: `()` in this version.
        choices: All the answers to the prompt, in the order of their seeds: this one, unless `n=` asked for more.

    Example:
        >>> from phicandle import Generator
        >>> with Generator("demo") as generator:
        ...     answer = generator.generate("Write a haiku about ice hockey", temperature=0.0)
        >>> len(str(answer).splitlines())
        3
    """

    __slots__ = (  # noqa: RUF023 - the order of the fields
        "text",
        "token_ids",
        "finish_reason",
        "stop_reason",
        "usage",
        "metrics",
        "logprobs",
        "prompt_logprobs",
        "parsed",
        "tool_calls",
        "seed",
        "model",
        "dropped",
        "_choices",
    )

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None
    stop_reason: str | int | None
    usage: Usage
    metrics: Metrics
    logprobs: tuple[TokenLogprob, ...] | None
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None
    parsed: None
    tool_calls: tuple[()]
    seed: int | None
    model: str
    dropped: Dropped
    _choices: tuple[Completion, ...]

    def __init__(
        self,
        text: str,
        *,
        token_ids: tuple[int, ...] = (),
        finish_reason: FinishReason | None = None,
        stop_reason: str | int | None = None,
        usage: Usage | None = None,
        metrics: Metrics | None = None,
        seed: int | None = None,
        model: str = "",
        logprobs: tuple[TokenLogprob, ...] | None = None,
        prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None,
        dropped: Dropped | None = None,
        choices: tuple[Completion, ...] = (),
    ) -> None:
        self._fill(
            {
                "text": text,
                "token_ids": token_ids,
                "finish_reason": finish_reason,
                "stop_reason": stop_reason,
                "usage": usage or Usage(completion_tokens=len(token_ids)),
                "metrics": metrics or Metrics(),
                "logprobs": logprobs,
                "prompt_logprobs": prompt_logprobs,
                "parsed": None,
                "tool_calls": (),
                "seed": seed,
                "model": model,
                "dropped": Dropped() if dropped is None else dropped,
                "_choices": choices,
            }
        )

    @property
    def choices(self) -> tuple[Completion, ...]:
        """All the answers to the prompt, in the order of their seeds: this one, unless `n=` asked for more."""
        return self._choices or (self,)

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields as a new `dict`, nested records as nested dicts.

        Returns:
            The fields by name, and of several answers "choices" with a `dict` for each.
        """
        values = super().as_dict()
        if self._choices:
            values["choices"] = [choice.as_dict() for choice in self._choices]
        return values

    def __str__(self) -> str:
        return self.text

    def to_openai(self, kind: str = "chat") -> dict[str, Any]:
        """Returns the answer in the form of OpenAI's HTTP interface.

        OpenAI has no "cancelled" and no "timeout": both become "length", its word for an incomplete answer. Logprobs
        are those of the text: a token that ended the turn is left out.

        Args:
            kind: "chat" for a `chat.completion`, "text" for a `text_completion`.

        Returns:
            A `dict` ready for `json.dumps`.

        Raises:
            InvalidParameterError: `kind` is something else.

        Example:
            >>> from phicandle import Completion
            >>> Completion("Ice.").to_openai()["choices"][0]["message"]["content"]
            'Ice.'
        """
        import time

        from .arguments import wrong

        if kind not in ("chat", "text"):
            raise wrong("kind", '"chat" or "text"', kind)
        return {
            "id": ("chatcmpl-" if kind == "chat" else "cmpl-") + _random_id(),
            "object": "chat.completion" if kind == "chat" else "text_completion",
            "created": int(time.time()),
            "model": self.model,
            "choices": [choice._openai_choice(kind, index) for index, choice in enumerate(self.choices)],
            "usage": {
                "prompt_tokens": self.usage.prompt_tokens,
                "completion_tokens": self.usage.completion_tokens,
                "total_tokens": self.usage.total_tokens,
                "prompt_tokens_details": {"cached_tokens": self.usage.cached_tokens},
            },
        }

    def _openai_choice(self, kind: str, index: int) -> dict[str, Any]:
        reason: str | None = self.finish_reason
        choice: dict[str, Any] = {"index": index}
        if kind == "chat":
            choice["message"] = {"role": "assistant", "content": self.text}
        else:
            choice["text"] = self.text
        choice["logprobs"] = None
        if self.logprobs is not None:
            shape = openai_chat if kind == "chat" else openai_text
            ended = self.token_ids[-1:] == (self.stop_reason,)
            choice["logprobs"] = shape(self.logprobs[:-1] if ended else self.logprobs)
        choice["finish_reason"] = "length" if reason in ("cancelled", "timeout") else reason
        return choice


def read(raw: _phicandle.RawStream, model: str) -> Completion:
    """Returns what a raw stream has delivered so far, or its whole answer when it has ended."""
    outcome = raw.outcome()
    text, token_ids, found = raw.written()
    logprobs = token_logprobs(found)
    dropped = missing(raw)
    if outcome is None:
        return Completion(text, token_ids=token_ids, model=model, logprobs=logprobs, dropped=dropped)
    prompt = token_logprobs(outcome["prompt_logprobs"])
    return Completion(
        text,
        token_ids=token_ids,
        finish_reason=outcome["finish_reason"],
        stop_reason=outcome["stop_reason"],
        usage=Usage(**outcome["usage"]),
        metrics=Metrics(**outcome["metrics"]),
        seed=outcome["seed"],
        model=model,
        logprobs=logprobs,
        prompt_logprobs=None if prompt is None else (None, *prompt),
        dropped=dropped,
    )


def missing(raw: _phicandle.RawStream) -> Dropped:
    """Returns what the prompt of a raw stream lacks."""
    turns, tokens = raw.dropped()
    return Dropped(turns=turns, tokens=tokens)


def joined(choices: list[Completion]) -> Completion:
    """Returns the answers to one prompt as one `Completion`."""
    first = choices[0]
    if len(choices) == 1:
        return first
    usage = Usage(
        prompt_tokens=first.usage.prompt_tokens,
        completion_tokens=sum(choice.usage.completion_tokens for choice in choices),
        cached_tokens=first.usage.cached_tokens,
    )
    values = {name: getattr(first, name) for name in Completion.__slots__}
    whole: Completion = restore(Completion, values | {"usage": usage, "_choices": tuple(choices)})
    return whole


def _random_id() -> str:
    import os

    return os.urandom(12).hex()
