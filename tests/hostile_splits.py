"""Split models whose parts contradict each other, and sound ones, for `test_hostile_files.py`.

A row damages the parts of a sound model and writes each under the name of its place, unless the row says otherwise.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

from gguf_files import Gguf, sound

COUNT = 3
CORRUPT, MISSING, LOADS = "CorruptModelError", "ModelNotFoundError", ""

#: Damages the parts in place; may return other bytes to write, by file name, and `None` for a file to leave out.
Damage = Callable[[list[Gguf]], "dict[str, bytes | None] | None"]


def part_name(number: int, count: int = COUNT) -> str:
    """The name of a part, counted from 1."""
    return f"m-{number:05}-of-{count:05}.gguf"


def parts(arch: str = "phi3") -> list[Gguf]:
    """A sound model as `gguf-split` writes it: the metadata in the first part, tensors in all."""
    whole = copy.deepcopy(sound(arch))
    share = -(-len(whole.tensors) // COUNT)
    made = []
    for number in range(COUNT):
        part = Gguf(keys=whole.keys if number == 0 else [])
        part.tensors = whole.tensors[number * share : (number + 1) * share]
        part.set("split.no", "u16", number).set("split.count", "u16", COUNT)
        made.append(part.set("split.tensors.count", "i32", len(whole.tensors)))
    return made


def _swap(files: list[Gguf]) -> None:
    files[1], files[2] = files[2], files[1]


def _other_model(files: list[Gguf]) -> None:
    files[1] = parts("llama")[1].set("general.architecture", "str", "llama")


def _all_of_other_shape(files: list[Gguf]) -> None:
    for file, other in zip(files[1:], parts("llama")[1:], strict=True):
        file.tensors = other.tensors
        file.set("split.tensors.count", "i32", 0)


def _cut(files: list[Gguf]) -> dict[str, bytes | None]:
    return {part_name(2): files[1].to_bytes()[:-64]}


#: What is written, and the class that opening any part must raise.
SPLITS: dict[str, tuple[str, Damage]] = {
    "sound": (LOADS, lambda parts: None),
    "sound, without the counts that may be left out": (
        LOADS,
        lambda parts: [part.drop("split.tensors.count") for part in parts] and None,
    ),
    "sound, numbers of other integer types": (
        LOADS,
        lambda parts: [part.set("split.count", "u64", COUNT) for part in parts] and None,
    ),
    "a part is missing": (MISSING, lambda parts: {part_name(3): None}),
    "a part is zeros": (CORRUPT, lambda parts: {part_name(3): bytes(4096)}),
    "a part is empty": (CORRUPT, lambda parts: {part_name(2): b""}),
    "a part is cut short": (CORRUPT, _cut),
    "a part twice": (CORRUPT, lambda parts: {part_name(3): parts[1].to_bytes()}),
    "parts in another order": (CORRUPT, _swap),
    "a whole model as a part": (CORRUPT, lambda parts: {part_name(2): sound().to_bytes()}),
    "a part of another model": (CORRUPT, _other_model),
    "parts of a model of another architecture": (CORRUPT, _all_of_other_shape),
    "a tensor in two parts": (
        CORRUPT,
        lambda parts: parts[1].tensors.append(parts[0].tensors[0]) or None,
    ),
    "a tensor in no part": (CORRUPT, lambda parts: parts[2].tensors.pop() and None),
    "one part of four": (CORRUPT, lambda parts: parts[1].set("split.count", "u16", 4) and None),
    "another count of tensors in one part": (
        CORRUPT,
        lambda parts: parts[1].set("split.tensors.count", "i32", 7) and None,
    ),
    "a negative number": (CORRUPT, lambda parts: parts[0].set("split.no", "i16", -1) and None),
    "a number past the last": (CORRUPT, lambda parts: parts[0].set("split.no", "u16", 3) and None),
    "no number": (CORRUPT, lambda parts: parts[0].drop("split.no") and None),
    "65,535 parts": (CORRUPT, lambda parts: parts[0].set("split.count", "u16", 65_535) and None),
    "a count of text": (CORRUPT, lambda parts: parts[0].set("split.count", "str", "3") and None),
    "version 2 in one part": (CORRUPT, lambda parts: setattr(parts[1], "version", 2)),
    "another alignment": (CORRUPT, lambda parts: parts[1].set("general.alignment", "u32", 64) and None),
    "a key that the first part lacks": (
        CORRUPT,
        lambda parts: parts[1].set("phi3.attention.sliding_window", "u32", 9) and None,
    ),
    "a name that is no part": (
        CORRUPT,
        lambda parts: {part_name(1): None, "whole.gguf": parts[0].to_bytes()},
    ),
    "names of two parts": (
        CORRUPT,
        lambda parts: {part_name(1): None, part_name(1, 2): parts[0].to_bytes()},
    ),
}


def write(name: str, folder: Path) -> Path:
    """Writes a row's files and returns the one to open: the first that is there."""
    files = parts()
    others = SPLITS[name][1](files)
    named = {part_name(number): file.to_bytes() for number, file in enumerate(files, 1)}
    named.update(others if isinstance(others, dict) else {})
    for file, data in named.items():
        if data is not None:
            (folder / file).write_bytes(data)
    extra = [file for file in named if file in (part_name(1, 2), "whole.gguf")]
    return folder / (extra or [part_name(1)])[0]
