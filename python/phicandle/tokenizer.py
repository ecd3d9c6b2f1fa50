"""`Tokenizer`: text to token ids and back."""

from __future__ import annotations

import os

from . import _phicandle
from .arguments import flag, text, token_ids, wrong
from .prompt import messages_json

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
            >>> from phicandle import Tokenizer
            >>> tokenizer = Tokenizer.from_file("python/phicandle/demo.gguf")
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
        ) -> str: ...

        @overload
        def apply_chat_template(
            self,
            messages: Sequence[Mapping[str, Any]],
            add_generation_prompt: bool = True,
            *,
            tokenize: Literal[True],
        ) -> list[int]: ...

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        tokenize: bool = False,
    ) -> str | list[int]:
        """Writes messages as the model expects them.

        Args:
            messages: Mappings with "role" and "content".
            add_generation_prompt: Whether to end with the opening of the assistant's turn.
            tokenize: Whether to return token ids. They are not always those of the text: control tokens that are
                spelled inside a message stay text.

        Returns:
            The text, or the token ids.

        Raises:
            InvalidParameterError: `messages` is not a sequence of messages.
            TemplateError: The template does not parse, or refuses these messages.

        Example:
            >>> from phicandle import Generator
            >>> tokenizer = Generator("demo").tokenizer
            >>> tokenizer.apply_chat_template([{"role": "user", "content": "ice"}])[:8]
            '<|user|>'
        """
        written = messages_json(messages)
        add = flag("add_generation_prompt", add_generation_prompt)
        if flag("tokenize", tokenize):
            return self._raw.encode_chat(written, add)
        return self._raw.render_chat(written, add)

    @property
    def vocab_size(self) -> int:
        """Number of token ids: every id is below it."""
        return self._raw.vocab_size()

    @property
    def bos_id(self) -> int | None:
        """The token that begins a text, if there is one."""
        return self._raw.bos_id()

    @property
    def eos_ids(self) -> frozenset[int]:
        """Every token that ends an answer."""
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
