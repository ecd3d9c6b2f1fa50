"""Small byte-level vocabularies shaped like the published ones, and a reference encoder of our own for them.

The reference knows only what is published: the pattern, the merges, and how byte pairs are joined. It shares nothing
with the package: its engine of patterns is the module `regex`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import regex
from gguf_files import Gguf, tiny

#: Patterns as they are published: GPT-2's, OpenAI's cl100k_base as tokenizer.json files have it, and o200k_base.
GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

#: What the merges are learnt from.
CORPUS = (
    "the the there then an and ant in ing tin'll don't don't HTTP Http http 2024 2025 café naïve the user's system "
    "ice hockey  the 日本 日本語 end> <| |>\n\n  \n   \u0301e\u0301 I'LL !!\n/ //"
)


@dataclass(frozen=True)
class Vocabulary:
    """One family: its pre-tokenizer's name and pattern, its control tokens, and those that end an answer."""

    name: str
    pre: str
    pattern: str
    control: tuple[str, ...]
    closers: tuple[str, ...]

    @property
    def tokens(self) -> list[str]:
        """Spellings by id."""
        return [*ALPHABET, *(left + right for left, right in self.merges), *self.control]

    @property
    def merges(self) -> list[tuple[str, str]]:
        """The pairs to join, the first first."""
        return _learn(self.pattern)

    def encode(self, text: str) -> list[int]:
        """The ids of plain text."""
        ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        ids = {token: index for index, token in enumerate(self.tokens)}
        found = []
        for word in regex.findall(self.pattern, text):
            parts = [ALPHABET[byte] for byte in word.encode()]
            while True:
                pairs = [(ranks.get(pair, len(ranks)), at) for at, pair in enumerate(pairwise(parts))]
                rank, at = min(pairs, default=(len(ranks), 0))
                if rank == len(ranks):
                    break
                parts[at : at + 2] = ["".join(parts[at : at + 2])]
            found += [ids[part] for part in parts]
        return found

    def file(self, *, eos: str | None = "<|endoftext|>", control_type: int = 3, arch: str = "phi3") -> Gguf:
        """A whole model, without a chat template. `eos` may name a wrong token; `control_type` may be a wrong type."""
        tokens = self.tokens
        file = tiny(arch, vocab=512, template=None)
        file.keys = [key for key in file.keys if not key.name.startswith(b"tokenizer.")]
        file.set("tokenizer.ggml.model", "str", "gpt2").set("tokenizer.ggml.pre", "str", self.pre)
        file.set("tokenizer.ggml.tokens", "[str]", tokens)
        normal = len(tokens) - len(self.control)
        kinds = [4 if text.isspace() else control_type for text in self.control]
        file.set("tokenizer.ggml.token_type", "[i32]", [1] * normal + kinds)
        file.set("tokenizer.ggml.merges", "[str]", [f"{left} {right}" for left, right in self.merges])
        file.set("tokenizer.ggml.bos_token_id", "u32", tokens.index("<|endoftext|>"))
        if eos is not None:
            file.set("tokenizer.ggml.eos_token_id", "u32", tokens.index(eos))
        file.set("tokenizer.ggml.add_bos_token", "bool", False)
        return file


def _alphabet() -> list[str]:
    """GPT-2's character for every byte: printable ones stand for themselves, the rest count up from U+0100."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


ALPHABET = _alphabet()
_LEARNT: dict[str, list[tuple[str, str]]] = {}


def _learn(pattern: str) -> list[tuple[str, str]]:
    """Byte pairs of the corpus, the most frequent first."""
    if pattern in _LEARNT:
        return _LEARNT[pattern]
    words = [[ALPHABET[byte] for byte in word.encode()] for word in regex.findall(pattern, CORPUS)]
    merges: list[tuple[str, str]] = []
    tokens = set(ALPHABET)
    while len(merges) < 100:
        counts = Counter(pair for word in words for pair in pairwise(word))
        fresh = [(count, pair) for pair, count in counts.items() if "".join(pair) not in tokens]
        if not fresh:
            break
        pair = max(fresh)[1]
        merges.append(pair)
        tokens.add("".join(pair))
        for word in words:
            for at in range(len(word) - 1, 0, -1):
                if tuple(word[at - 1 : at + 1]) == pair:
                    word[at - 1 : at + 1] = ["".join(pair)]
    _LEARNT[pattern] = merges
    return merges


PHI_2 = Vocabulary("Phi-2", "phi-2", GPT_2, ("<|endoftext|>", "    ", "  ", "\t\t"), ("<|endoftext|>",))
PHI_4 = Vocabulary(
    "Phi-4",
    "dbrx",
    CL100K,
    ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>"),
    ("<|endoftext|>", "<|im_end|>"),
)
PHI_4_MINI = Vocabulary(
    "Phi-4-mini",
    "gpt-4o",
    O200K,
    ("<|endoftext|>", "<|assistant|>", "<|end|>", "<|user|>", "<|system|>", "<|tool|>", "<|/tool|>"),
    ("<|endoftext|>", "<|end|>"),
)
ALL = (PHI_2, PHI_4, PHI_4_MINI)
