"""How likely text is to the model: `TokenLogprob`, `Score` and `Perplexity`."""

from __future__ import annotations

from .record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from . import _phicandle


class TokenLogprob(Record):
    """A token, and how likely the model found it at its place.

    What is told is what the model itself said, as in vLLM: the logarithm of the softmax of its raw logits, before
    bias, penalties, temperature and filters had their say. So the token that was sampled need not be the likeliest.

    Args:
        token_id: The token.
        logprob: Natural logarithm of its probability, 0.0 or less.
        spelling: The token in UTF-8 bytes, of which a character may take several tokens; empty for an id without any.
        top: The likeliest tokens at this place, the likeliest first: as many as `logprobs=` asked for, with an empty
            `top` of their own.

    Attributes:
        token: The spelling as text, with U+FFFD for what is no whole character.

    Example:
        >>> from phicandle import Generator
        >>> with Generator("demo") as generator:
        ...     answer = generator.generate("Write a haiku about ice hockey", temperature=0.0, logprobs=2)
        >>> first = answer.logprobs[0]
        >>> (first.token_id == first.top[0].token_id, first.logprob == first.top[0].logprob, len(first.top))
        (True, True, 2)
    """

    __slots__ = ("token_id", "logprob", "spelling", "top")  # noqa: RUF023 - the order of the fields

    token_id: int
    logprob: float
    spelling: bytes
    top: tuple[TokenLogprob, ...]

    def __init__(
        self, token_id: int, logprob: float, spelling: bytes = b"", top: tuple[TokenLogprob, ...] = ()
    ) -> None:
        self._fill({"token_id": token_id, "logprob": logprob, "spelling": spelling, "top": top})

    @property
    def token(self) -> str:
        """The spelling as text, with U+FFFD for what is no whole character."""
        return self.spelling.decode(errors="replace")


class Score(Record):
    """How likely a continuation is after its prompt.

    Args:
        logprobs: The continuation's tokens with their logprobs.

    Attributes:
        token_ids: The continuation's tokens.
        sum: The sum of the logprobs: the logarithm of the probability of the whole continuation.
        mean: The sum over the number of tokens: fairer to long continuations.

    Example:
        >>> from phicandle import Generator
        >>> with Generator("demo") as generator:
        ...     line, noise = generator.score("Write a haiku about ice", ["the ice is still", "qqqqqqqqqqqqq"])
        >>> line.sum > noise.sum
        True
    """

    __slots__ = ("logprobs", "token_ids", "sum", "mean")  # noqa: RUF023 - the order of the fields

    logprobs: tuple[TokenLogprob, ...]
    token_ids: tuple[int, ...]
    sum: float
    mean: float

    def __init__(self, logprobs: tuple[TokenLogprob, ...]) -> None:
        from math import fsum

        total = fsum(found.logprob for found in logprobs)
        self._fill(
            {
                "logprobs": logprobs,
                "token_ids": tuple(found.token_id for found in logprobs),
                "sum": total,
                "mean": total / max(1, len(logprobs)),
            }
        )


class Perplexity(Record):
    """How well a model predicts a text. `float(perplexity)` is the number.

    Args:
        mean_logprob: Mean of the natural logarithms of the probabilities of the scored tokens; the loss is its
            negative.
        scored_tokens: Tokens that were scored: every one but the first, each once.
        windows: Windows that the text was cut into.
        window: Tokens of a window.
        stride: Tokens from the beginning of a window to that of the next.

    Attributes:
        perplexity: `exp(-mean_logprob)`: 1.0 for a text that was certain, and as many as the vocabulary has entries
            for blind guesses.

    Example:
        >>> from phicandle import Perplexity
        >>> float(Perplexity(mean_logprob=0.0, scored_tokens=9, windows=1, window=16, stride=8))
        1.0
    """

    __slots__ = ("perplexity", "mean_logprob", "scored_tokens", "windows", "window", "stride")  # noqa: RUF023 - the order of the fields

    perplexity: float
    mean_logprob: float
    scored_tokens: int
    windows: int
    window: int
    stride: int

    def __init__(
        self, *, mean_logprob: float, scored_tokens: int, windows: int, window: int, stride: int
    ) -> None:
        from math import exp, inf

        self._fill(
            {
                # Past this the exponential is no number.
                "perplexity": exp(-mean_logprob) if mean_logprob > -700 else inf,
                "mean_logprob": mean_logprob,
                "scored_tokens": scored_tokens,
                "windows": windows,
                "window": window,
                "stride": stride,
            }
        )

    def __float__(self) -> float:
        return self.perplexity


def token_logprobs(raw: tuple[_phicandle._TokenLogprob, ...] | None) -> tuple[TokenLogprob, ...] | None:
    """Returns what the Rust core found."""
    if raw is None:
        return None
    return tuple(
        TokenLogprob(token, logprob, spelling, tuple(TokenLogprob(*other) for other in top))
        for token, logprob, spelling, top in raw
    )


def openai_chat(tokens: tuple[TokenLogprob, ...]) -> dict[str, Any]:
    """Returns tokens as the `logprobs` of a `chat.completion`."""

    def entry(found: TokenLogprob) -> dict[str, Any]:
        return {"token": found.token, "logprob": found.logprob, "bytes": list(found.spelling)}

    content = [{**entry(found), "top_logprobs": [entry(other) for other in found.top]} for found in tokens]
    return {"content": content, "refusal": None}


def openai_text(tokens: tuple[TokenLogprob, ...]) -> dict[str, Any]:
    """Returns tokens as the `logprobs` of a `text_completion`."""
    offsets, written = [], b""
    for found in tokens:
        offsets.append(len(written.decode(errors="ignore")))
        written += found.spelling
    return {
        "tokens": [found.token for found in tokens],
        "token_logprobs": [found.logprob for found in tokens],
        "top_logprobs": [{other.token: other.logprob for other in found.top} for found in tokens],
        "text_offset": offsets,
    }
