"""`Tokenizer`: text to token ids and back."""

from __future__ import annotations

import os

from . import _phicandle
from .arguments import flag, integer, text, token_ids, wrong
from .errors import TokenizerError
from .prompt import messages_json, tools_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Literal, overload

    from .types import StrPath


class Tokenizer:
    """Text to token ids and back. Made by `Tokenizer.from_file` or `Generator.tokenizer`.

    Safe to share between threads.

    Example:
        >>> from phicandle import Generator
        >>> tokenizer = Generator("demo").tokenizer
        >>> tokenizer.decode(tokenizer.encode("ice hockey"))
        'ice hockey'
    """

    __slots__ = ("_path", "_raw")

    def __init__(self, raw: _phicandle.RawTokenizer, path: str | None = None) -> None:
        self._raw = raw
        self._path = path

    @classmethod
    def from_file(cls, path: StrPath) -> Tokenizer:
        """Reads the tokenizer of a `.gguf` model file, or a `tokenizer.json`.

        Args:
            path: The file.

        Returns:
            The tokenizer. One from a `.gguf` also knows the file's chat template.

        Raises:
            ModelNotFoundError: There is no such file.
            ModelReadError: The file cannot be read.
            CorruptModelError: The file breaks its format.
            TokenizerError: The vocabulary cannot be used.

        Example:
            >>> from phicandle import Generator, Tokenizer
            >>> tokenizer = Tokenizer.from_file(Generator("demo").info.source)
            >>> tokenizer.vocab_size > 0
            True
        """
        name = file_path("path", path)
        return cls(_phicandle.RawTokenizer.from_file(name), name)

    def encode(self, text: str, bos: bool | None = None) -> list[int]:
        """Returns the token ids of a text.

        Args:
            text: Any text. Spellings of control tokens in it stay text.
            bos: Whether the beginning-of-text token comes first; `None` = as the file says.

        Returns:
            The ids, `len >= 0`.

        Raises:
            InvalidParameterError: `text` is not a str of whole characters.

        Example:
            >>> from phicandle import Generator
            >>> len(Generator("demo").tokenizer.encode("ice hockey", bos=False)) > 0
            True
        """
        return self._raw.encode(_text(text), None if bos is None else flag("bos", bos))

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Returns the text of token ids. Bytes that are not UTF-8 become U+FFFD.

        Args:
            ids: Token ids.
            skip_special: Whether control tokens are left out; else they are spelled.

        Returns:
            The text.

        Raises:
            InvalidParameterError: `ids` is not a sequence of ints.
            TokenizerError: An id is not in the vocabulary.

        Example:
            >>> from phicandle import Generator
            >>> tokenizer = Generator("demo").tokenizer
            >>> tokenizer.decode(tokenizer.encode("ice"))
            'ice'
        """
        return self._raw.decode(list(token_ids("ids", ids)), flag("skip_special", skip_special))

    if TYPE_CHECKING:

        @overload
        def apply_chat_template(
            self,
            messages: Sequence[Mapping[str, Any]],
            add_generation_prompt: bool = True,
            tokenize: Literal[False] = False,
            *,
            tools: Sequence[Mapping[str, Any]] | None = None,
        ) -> str: ...

        @overload
        def apply_chat_template(
            self,
            messages: Sequence[Mapping[str, Any]],
            add_generation_prompt: bool = True,
            *,
            tokenize: Literal[True],
            tools: Sequence[Mapping[str, Any]] | None = None,
        ) -> list[int]: ...

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        tokenize: bool = False,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str | list[int]:
        """Writes messages as the model expects them.

        Args:
            messages: Mappings with "role" and "content".
            add_generation_prompt: Whether to end with the opening of the assistant's turn.
            tokenize: Whether to return token ids. They are not always those of the text: control tokens that are
                spelled inside a message stay text.
            tools: Functions that the model may ask for, as JSON schemas (`{"type": "function", "function": {...}}`, or
                the function alone). The template gets them as its variable `tools`, or in the system message where it
                looks for them there, as Phi-4-mini's does. `None` = none.

        Returns:
            The text, or the token ids.

        Raises:
            InvalidParameterError: `messages` is not a sequence of messages, or `tools` not one of mappings.
            TemplateError: The template does not parse, refuses these messages, or has no place for tools.

        Example:
            >>> from phicandle import Generator
            >>> tokenizer = Generator("demo").tokenizer
            >>> tokenizer.apply_chat_template([{"role": "user", "content": "ice"}])[:8]
            '<|user|>'
        """
        written = messages_json(messages)
        functions = tools_json(tools)
        add = flag("add_generation_prompt", add_generation_prompt)
        if flag("tokenize", tokenize):
            return self._raw.encode_chat(written, functions, add)
        return self._raw.render_chat(written, functions, add)

    def token(self, token_id: int) -> str:
        """Returns one token as it is written: a piece of text, or a control token's spelling.

        Args:
            token_id: A token id.

        Returns:
            The text, with U+FFFD for part of a character. That of several ids is `decode`'s.

        Raises:
            InvalidParameterError: `token_id` is not an int.
            TokenizerError: The id is not in the vocabulary.

        Example:
            >>> from phicandle import Generator
            >>> tokenizer = Generator("demo").tokenizer
            >>> tokenizer.token(tokenizer.special["<|end|>"])
            '<|end|>'
        """
        number = integer("token_id", token_id, 0, 2**32 - 1)
        found = self._raw.token(number)
        if found is None:
            raise TokenizerError(
                f"Token {number} is outside the vocabulary of {self.vocab_size} tokens.",
                hint="Pass an id below `vocab_size`.",
            )
        return found

    @property
    def vocab_size(self) -> int:
        """Number of token ids: every id is below it."""
        return self._raw.vocab_size()

    @property
    def bos_id(self) -> int | None:
        """The token that begins a text, if there is one."""
        return self._raw.bos_id()

    @property
    def eos_id(self) -> int | None:
        """The end-of-text token that the file names. `eos_ids` has all that end an answer."""
        return self._raw.role_ids()[0]

    @property
    def eot_id(self) -> int | None:
        """The token that closes a turn: the one that the file names, else that of its vocabulary's family."""
        return self._raw.role_ids()[1]

    @property
    def unk_id(self) -> int | None:
        """The token for text that no other token spells, if the file names one."""
        return self._raw.role_ids()[2]

    @property
    def pad_id(self) -> int | None:
        """The token that fills up batches, if the file names one. Nothing here uses it."""
        return self._raw.role_ids()[3]

    @property
    def eos_ids(self) -> frozenset[int]:
        """Every token that ends an answer: those that the file names, and the closing tokens of its family."""
        return frozenset(self._raw.eos_ids())

    @property
    def special(self) -> dict[str, int]:
        """The control tokens by spelling."""
        return self._raw.special()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._path is None:
            raise TypeError(
                "This Tokenizer belongs to a Generator and cannot be pickled: use Tokenizer.from_file."
            )
        return Tokenizer.from_file, (self._path,)

    def __repr__(self) -> str:
        return f"<phicandle.Tokenizer of {self.vocab_size} tokens>"


def file_path(name: str, value: object) -> str:
    """Returns a path argument as a str.

    Raises:
        InvalidParameterError: It is not a path.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise wrong(name, "a path (str or os.PathLike)", value)
    path = os.fspath(value)
    if not isinstance(path, str):
        raise wrong(name, "a path of str, not of bytes", value)
    if "\0" in path:
        raise wrong(name, "a path without a NUL character", value)
    return path


def _text(value: object) -> str:
    return text("text", value)
