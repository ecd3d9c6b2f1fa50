"""`SamplingParams`: how an answer is sampled, and when it ends."""

from __future__ import annotations

import os

from . import _phicandle
from .arguments import flag, integer, merge, number, rename, strings, text, token_ids, wrong
from .errors import InvalidParameterError
from .record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from typing_extensions import Unpack

    from .types import Overflow, SamplingAliases, SamplingOverrides

ALIASES = {
    "max_new_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "sample_len": "max_tokens",
    "num_predict": "max_tokens",
    "temp": "temperature",
    "repetition_penalty": "repeat_penalty",
    "penalty_window": "repeat_last_n",
    "stop_strings": "stop",
    "stop_sequences": "stop",
    "typical": "typical_p",
    "rng_seed": "seed",
    "random_seed": "seed",
    "response_format": "response_format",
}

# Fields that have a name already, so that programs can be written for them, but only one value in this version.
_NOT_YET: dict[str, tuple[object, ...]] = {
    "schema": (None,),
    "regex": (None,),
    "choices": (None,),
    "grammar": (None,),
    "tools": ((), [], None),
    "tool_choice": ("auto", "none"),
}


class SamplingParams(Record):
    r"""How an answer is sampled, and when it ends. Read-only; `replace` makes a changed copy.

    The defaults are those of the Phi cookbook's Rust tutorial.

    Args:
        max_tokens: Most tokens to write; `None` = until the model ends its turn or the context is full.
        temperature: Spread of the choice, at least 0.0; 0.0 = always the likeliest token.
        top_k: Choose among the `k` likeliest tokens, at least 1; `None` = all.
        top_p: Choose among the likeliest tokens whose probabilities reach this sum, above 0.0 to 1.0; `None` = all.
        min_p: Drop tokens less likely than this share of the likeliest one, 0.0 to 1.0; `None` = none.
        typical_p: Keep the most typical tokens up to this sum of probabilities, above 0.0 to 1.0; `None` = all.
        repeat_penalty: Divides (or multiplies, below zero) the logits of recent tokens, above 0.0; 1.0 = off.
        repeat_last_n: How many of the last written tokens `repeat_penalty` looks at.
        presence_penalty: Taken from the logit of every token written before, -2.0 to 2.0.
        frequency_penalty: Taken from a token's logit once for each time it was written, -2.0 to 2.0.
        logit_bias: Added to the logits of these token ids; `-inf` bans one.
        seed: For repeatable answers, 0 to 2**64 - 1; `None` = a random one, told in `Completion.seed`.
        stop: A string, or several, that end the answer.
        stop_token_ids: Token ids that end the answer.
        include_stop: Whether the stop string that was met is part of the text.
        ignore_eos: Go on after the model's end-of-turn token.
        min_tokens: Fewest tokens to write before the answer may end.
        timeout: Most seconds from the call to the end, queueing included; `None` = no limit. An answer that runs out
            of time ends with `finish_reason="timeout"` and keeps its text.
        priority: Requests of higher priority go first, and those of lower priority may have to wait for them, -1000 to
            1000.
        template: `None` = a `str` prompt goes through the chat template, unless it begins with one of its control
            tokens; `False` = a `str` prompt is raw text; `True` = always through the template.
        logprobs: Tell of each written token how likely the model found it, and which this many tokens were the
            likeliest at its place, 0 to 20: before bias, penalties, temperature and filters. `None` = tell nothing.
        prompt_logprobs: The same for the tokens of the prompt.
        overflow: What to do with a prompt that does not leave the answer its room in the context: `max_tokens`, up to
            half the context, or a quarter of it (at most 1024 tokens) where that is `None`. "error" = refuse it when
            it leaves no room at all; "drop_oldest_turns" = leave out whole turns of a conversation (a user message
            with all that follows it), the oldest first, never a system message, never the last turn, in steps of a
            quarter of the context, so that the prompts of the turns that follow begin alike;
            "truncate_middle" = cut the middle out of the longest messages, system messages excepted, and write
            "\n[...]\n" there; of raw text likewise, of token ids without the mark. `Completion.dropped` tells what
            was left out. A prompt that stays too long raises `ContextOverflowError`.
        n: How many answers to write to the one prompt, 1 to 1024: `Completion.choices`. They are computed together, and
            answer `i` is what the seed `seed + i` (past the largest seed, from 0 on) gives alone.
        schema, regex, choices, grammar, tools, tool_choice: Only their defaults in this version.
        **aliases: Names that other libraries use: `max_new_tokens`, `max_completion_tokens`, `sample_len`,
            `num_predict` (`max_tokens`); `temp` (`temperature`); `repetition_penalty` (`repeat_penalty`);
            `penalty_window` (`repeat_last_n`); `stop_strings`, `stop_sequences` (`stop`); `typical` (`typical_p`);
            `rng_seed`, `random_seed` (`seed`); `response_format` (`{"type": "text"}` only).

    Raises:
        InvalidParameterError: A name is unknown, or a value has the wrong type or is out of range.

    Example:
        >>> from phicandle import SamplingParams
        >>> calm = SamplingParams(temperature=0.2, top_p=0.9)
        >>> calm.replace(seed=7).seed
        7
    """

    __slots__ = (  # noqa: RUF023 - the order of the fields
        "max_tokens",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "typical_p",
        "repeat_penalty",
        "repeat_last_n",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "seed",
        "stop",
        "stop_token_ids",
        "include_stop",
        "ignore_eos",
        "min_tokens",
        "n",
        "logprobs",
        "prompt_logprobs",
        "schema",
        "regex",
        "choices",
        "grammar",
        "tools",
        "tool_choice",
        "timeout",
        "priority",
        "template",
        "overflow",
    )

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
    logit_bias: dict[int, float] | None
    seed: int | None
    stop: tuple[str, ...]
    stop_token_ids: tuple[int, ...]
    include_stop: bool
    ignore_eos: bool
    min_tokens: int
    n: int
    logprobs: int | None
    prompt_logprobs: int | None
    schema: Any
    regex: str | None
    choices: Sequence[str] | None
    grammar: str | None
    tools: Sequence[Any]
    tool_choice: Any
    timeout: float | None
    priority: int
    template: bool | None
    overflow: str

    def __init__(
        self,
        *,
        max_tokens: int | None = 100,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        typical_p: float | None = None,
        repeat_penalty: float = 1.2,
        repeat_last_n: int = 64,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        logit_bias: Mapping[int, float] | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] | None = (),
        stop_token_ids: Sequence[int] | None = (),
        include_stop: bool = False,
        ignore_eos: bool = False,
        min_tokens: int = 0,
        n: int = 1,
        logprobs: int | None = None,
        prompt_logprobs: int | None = None,
        schema: Mapping[str, Any] | type | None = None,
        regex: str | None = None,
        choices: Sequence[str] | None = None,
        grammar: str | None = None,
        tools: Sequence[Any] = (),
        tool_choice: str | Mapping[str, Any] = "auto",
        timeout: float | None = None,
        priority: int = 0,
        template: bool | None = None,
        overflow: Overflow = "error",
        **aliases: Unpack[SamplingAliases],
    ) -> None:
        values: dict[str, Any] = {
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "min_p": min_p,
            "typical_p": typical_p,
            "repeat_penalty": repeat_penalty,
            "repeat_last_n": repeat_last_n,
            "presence_penalty": presence_penalty,
            "frequency_penalty": frequency_penalty,
            "logit_bias": logit_bias,
            "seed": seed,
            "stop": stop,
            "stop_token_ids": stop_token_ids,
            "include_stop": include_stop,
            "ignore_eos": ignore_eos,
            "min_tokens": min_tokens,
            "n": n,
            "logprobs": logprobs,
            "prompt_logprobs": prompt_logprobs,
            "schema": schema,
            "regex": regex,
            "choices": choices,
            "grammar": grammar,
            "tools": tools,
            "tool_choice": tool_choice,
            "timeout": timeout,
            "priority": priority,
            "template": template,
            "overflow": overflow,
        }
        if aliases:
            more = _canonical(aliases, "SamplingParams")
            values = merge(values, more, SamplingParams.__init__.__kwdefaults__ or {}, "SamplingParams")
        self._fill(_checked(values))
        _phicandle.check_params(self.raw())

    def replace(self, **changes: Unpack[SamplingOverrides]) -> SamplingParams:
        """Returns a copy with some fields changed.

        Args:
            **changes: Fields of `SamplingParams`, or their aliases.

        Returns:
            The changed copy; this one stays as it is.

        Raises:
            InvalidParameterError: As for `SamplingParams`.

        Example:
            >>> from phicandle import SamplingParams
            >>> SamplingParams().replace(max_new_tokens=5).max_tokens
            5
        """
        if not changes:
            return self
        values = {name: getattr(self, name) for name in self.__slots__}
        return SamplingParams(**(values | _canonical(changes, "SamplingParams")))

    def raw(self) -> _phicandle._Params:
        """Returns the fields that the Rust core reads. For phicandle's own use."""
        return {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "typical_p": self.typical_p,
            "repeat_penalty": self.repeat_penalty,
            "repeat_last_n": self.repeat_last_n,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "logit_bias": list(self.logit_bias.items()) if self.logit_bias else [],
            "seed": self.seed,
            "stop": list(self.stop),
            "stop_token_ids": list(self.stop_token_ids),
            "include_stop": self.include_stop,
            "ignore_eos": self.ignore_eos,
            "min_tokens": self.min_tokens,
            "logprobs": self.logprobs,
            "prompt_logprobs": self.prompt_logprobs,
            "timeout": self.timeout,
            "overflow": self.overflow,
            "priority": self.priority,
        }


def each_choice(params: SamplingParams) -> list[_phicandle._Params]:
    """Returns what the Rust core is asked for each of the `n` answers.

    Their seeds are `seed` and those after it; without one, a random one and those after it.
    """
    raw = params.raw()
    if params.n == 1:
        return [raw]
    seed = raw["seed"]
    first = int.from_bytes(os.urandom(8), "little") if seed is None else seed
    return [{**raw, "seed": (first + index) % 2**64} for index in range(params.n)]


def resolve(params: SamplingParams | None, overrides: Mapping[str, Any], where: str) -> SamplingParams:
    """Returns `params`, or the defaults, with `overrides` applied.

    Raises:
        InvalidParameterError: `params` is not a `SamplingParams`, or an override is wrong.
    """
    if params is None:
        return SamplingParams(**_canonical(overrides, where))
    if not isinstance(params, SamplingParams):
        raise wrong("params", "a SamplingParams or None", params)
    return params.replace(**_canonical(overrides, where))


def _canonical(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    values = rename(given, SamplingParams.__slots__, ALIASES, where)
    form = values.pop("response_format", None)
    if form is not None and form != {"type": "text"}:
        raise _not_yet("response_format")
    return values


def _not_yet(name: str) -> InvalidParameterError:
    return InvalidParameterError(
        f"{name} is not in this version of phicandle yet: only its default works.",
        hint=f"Leave {name} out.",
        parameter=name,
    )


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    for name, allowed in _NOT_YET.items():
        value = values[name]
        if not any(type(value) is type(good) and value == good for good in allowed):
            raise _not_yet(name)
    values["tools"] = ()
    for name in ("max_tokens", "top_k", "logprobs", "prompt_logprobs"):
        if values[name] is not None:
            values[name] = integer(name, values[name])
    values["n"] = integer("n", values["n"], 1, 1024)
    for name in ("repeat_last_n", "min_tokens"):
        values[name] = integer(name, values[name])
    values["priority"] = integer("priority", values["priority"], -1000, 1000)
    if values["seed"] is not None:
        values["seed"] = integer("seed", values["seed"], 0, 2**64 - 1)
    for name in ("temperature", "repeat_penalty", "presence_penalty", "frequency_penalty"):
        values[name] = number(name, values[name])
    for name in ("top_p", "min_p", "typical_p", "timeout"):
        if values[name] is not None:
            values[name] = number(name, values[name])
    for name in ("include_stop", "ignore_eos"):
        values[name] = flag(name, values[name])
    if values["template"] is not None:
        values["template"] = flag("template", values["template"])
    values["stop"] = strings("stop", values["stop"])
    values["stop_token_ids"] = token_ids("stop_token_ids", values["stop_token_ids"])
    values["logit_bias"] = _bias(values["logit_bias"])
    values["overflow"] = text("overflow", values["overflow"])
    return values


def _bias(value: object) -> dict[int, float] | None:
    if value is None:
        return None
    if not hasattr(value, "items"):
        raise wrong("logit_bias", "a mapping of token id to number", value)
    return {
        integer("logit_bias", _whole(token), 0, 2**32 - 1): number("logit_bias", bias)
        for token, bias in value.items()
    }


def _whole(token: object) -> object:
    # JSON has only string keys, so OpenAI's own clients send "1234".
    return (
        int(token)
        if isinstance(token, str) and token.isascii() and token.isdigit() and len(token) < 12
        else token
    )
