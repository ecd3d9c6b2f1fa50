"""Saved chats: written whole or not at all, read back as they were, refused with the key at fault."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_chat import SHORT

from phicandle import Chat, ChatFileError, CorruptModelError, Generator, InvalidParameterError, ModelReadError


@pytest.fixture
def saved(tiny: Generator, tmp_path: Path) -> Path:
    chat = tiny.chat("Be brief. 日本", tools=())
    chat.send("a", max_tokens=9, seed=1)
    for _ in chat.stream("b\n\t\"'", **{**SHORT, "max_tokens": 40}):
        break
    path = tmp_path / "chat.json"
    chat.save(path)
    return path


def test_a_chat_comes_back_as_it_was(tiny: Generator, tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    chat = tiny.chat("Be brief. 日本", [{"role": "user", "content": "x", "tags": [1, None, {"y": 2.5}]}])
    for turn in range(3):
        chat.send(f"{turn}", **SHORT)
        chat.save(path)
        loaded = tiny.load_chat(path) if turn else Chat.load(tiny, str(path))
        assert loaded.messages == chat.messages
        assert loaded.system == chat.system
        # The answers' own ids came back too, so the next prompt is the same.
        first, second = loaded.send("and?", **SHORT), chat.fork().send("and?", **SHORT)
        assert first.token_ids == second.token_ids
        assert first.usage.prompt_tokens == second.usage.prompt_tokens
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def kept(tiny_file: Path, tmp_path: Path) -> tuple[Path, int, tuple[int, ...]]:
    """A chat with its keys and values, of how many tokens these are, and how its next turn is answered."""
    path = tmp_path / "kept.json"
    with Generator(tiny_file) as generator:
        chat = generator.chat("Be brief.")
        for turn in range(3):
            chat.send(f"{turn} " + "ice hockey " * 20, **SHORT)
        known = chat.save(path, kv=True)
        return path, known, chat.send("and?", **SHORT).token_ids


def beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.kv")


def test_keys_and_values_come_back(kept: tuple[Path, int, tuple[int, ...]], tiny_file: Path) -> None:
    path, known, expected = kept
    assert known >= 128
    for kv in (None, True, False):
        with Generator(tiny_file) as generator:
            answer = generator.load_chat(path, kv=kv).send("and?", **SHORT)
            assert answer.token_ids == expected
            if kv is False:
                assert answer.usage.cached_tokens == 0
            else:
                assert answer.usage.cached_tokens >= known // 64 * 64
    # Saved again without them, the chat has none.
    with Generator(tiny_file) as generator:
        assert generator.load_chat(path).save(path) is None
        assert not beside(path).exists()
        assert generator.load_chat(path).send("and?", **SHORT).token_ids == expected
        with pytest.raises(ChatFileError, match="without its keys"):
            generator.load_chat(path, kv=True)


def test_keys_and_values_of_another_model_are_refused(
    kept: tuple[Path, int, tuple[int, ...]],
    tiny_file: Path,
    demo: Generator,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path, _, _ = kept
    with pytest.raises(InvalidParameterError, match="another model"):
        demo.load_chat(path, kv=True)
    with caplog.at_level(logging.WARNING, logger="phicandle"):
        assert len(demo.load_chat(path).messages) == 6
    assert any("another model" in record.message for record in caplog.records)
    # The same weights, but keys and values kept in another form.
    with (
        Generator(tiny_file, kv_dtype="q8") as other,
        pytest.raises(InvalidParameterError, match="other settings"),
    ):
        other.load_chat(path, kv=True)


def test_damaged_keys_and_values_are_not_used(
    kept: tuple[Path, int, tuple[int, ...]], tiny_file: Path
) -> None:
    path, _, expected = kept
    sound = beside(path).read_bytes()
    with Generator(tiny_file) as generator:
        for at in (0, 9, 45, 55, 70, len(sound) // 2, len(sound) - 1):
            damaged = bytearray(sound)
            damaged[at] ^= 0x40
            beside(path).write_bytes(damaged)
            with pytest.raises(CorruptModelError):
                generator.load_chat(path, kv=True)
        for data in (sound[:-1], sound[:100], b"", sound + b"\0"):
            beside(path).write_bytes(data)
            with pytest.raises(CorruptModelError):
                generator.load_chat(path, kv=True)
        beside(path).unlink()
        with pytest.raises(ModelReadError):
            generator.load_chat(path, kv=True)
        answer = generator.load_chat(path).send("and?", **SHORT)
        assert answer.token_ids == expected
        assert answer.usage.cached_tokens == 0


def test_what_a_long_chat_left_out_is_not_saved(tiny_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "long.json"
    with Generator(tiny_file, context_length=256) as generator:
        chat = generator.chat("Be brief.")
        for turn in range(16):
            chat.send(f"{turn} ice hockey", **{**SHORT, "max_tokens": 16}, overflow="drop_oldest_turns")
        assert chat.dropped.turns > 0
        known = chat.save(path, kv=True)
        assert 64 <= known <= 256
        again = generator.load_chat(path, kv=True)
        assert again.messages == chat.messages


def test_without_a_cache_nothing_is_saved(tiny_file: Path, tmp_path: Path) -> None:
    with Generator(tiny_file, prefix_cache=False) as generator:
        chat = generator.chat()
        assert chat.save(tmp_path / "chat.json", kv=True) == 0
        chat.send("ice hockey " * 60, **SHORT)
        assert chat.save(tmp_path / "chat.json", kv=True) == 0
        assert not beside(tmp_path / "chat.json").exists()
        with pytest.raises(ChatFileError, match="written"):
            chat.save(tmp_path / "nowhere" / "chat.json", kv=True)


def test_another_model_can_go_on(saved: Path, demo: Generator) -> None:
    chat = demo.load_chat(saved)
    assert chat.messages[0] == {"role": "user", "content": "a"}
    assert chat.send("a haiku about rain", max_tokens=3).usage.completion_tokens <= 3


def test_an_old_file_stays_when_the_new_one_cannot_be_written(
    saved: Path, tiny: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(ChatFileError, match="No space left") as caught:
            tiny.chat().save(saved)
    assert caught.value.path == str(saved)
    assert caught.value.place is None
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]
    with pytest.raises(ChatFileError, match="could not be written"):
        tiny.chat().save(saved.parent / "nowhere" / "chat.json")


def test_a_link_stays_a_link(saved: Path, tiny: Generator) -> None:
    link = saved.parent / "link.json"
    try:
        link.symlink_to(saved.name)
    except OSError:
        pytest.skip("makes a symbolic link")
    tiny.chat("other").save(link)
    assert link.is_symlink()
    assert tiny.load_chat(saved).system == "other"


def test_files_that_cannot_be_read(tiny: Generator, tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.json", tmp_path):
        with pytest.raises(ChatFileError, match="could not be read") as caught:
            tiny.load_chat(path)
        assert isinstance(caught.value, OSError)
        assert caught.value.path == str(path)


def put(*keys: Any, value: Any) -> Callable[[Any], None]:
    """Sets the value at the end of a path of keys."""

    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


def deep() -> Any:
    value: Any = 1
    for _ in range(80):
        value = [value]
    return value


HOSTILE: list[tuple[Callable[[Any], None], str]] = [
    (put("format", value="other"), "format"),
    (lambda content: content.pop("format"), "format"),
    (put("version", value=2), "version"),
    (put("version", value=True), "version"),
    (put("version", value="1"), "version"),
    (put("model", value=None), "model"),
    (put("system", value=7), "system"),
    (put("system", value="\ud800"), "system"),
    (put("messages", value={"0": 1}), "messages"),
    (lambda content: content.pop("messages"), "messages"),
    (put("messages", 1, value="hello"), "messages[1]"),
    (put("messages", 0, "role", value=7), "messages[0].role"),
    (lambda content: content["messages"][2].pop("content"), "messages[2].content"),
    (put("messages", 1, "content", value=["x"]), "messages[1].content"),
    (put("messages", 1, "content", value="a\udfff"), "messages[1].content"),
    (put("messages", 3, "finish_reason", value="because"), "messages[3].finish_reason"),
    (put("messages", 3, "finish_reason", value=["stop"]), "messages[3].finish_reason"),
    (put("messages", 1, "token_ids", value="123"), "messages[1].token_ids"),
    (put("messages", 1, "token_ids", value=[1, -1]), "messages[1].token_ids"),
    (put("messages", 1, "token_ids", value=[2**32]), "messages[1].token_ids"),
    (put("messages", 1, "token_ids", value=[1.0]), "messages[1].token_ids"),
    (put("messages", 1, "token_ids", value=[True]), "messages[1].token_ids"),
    (put("messages", 0, "extra", value=deep()), "messages[0].extra"),
    (put("messages", 0, "extra", value={"\ud800": 1}), "messages[0].extra"),
    (put("kv", value=1), "kv"),
    (lambda content: content.pop("kv"), "kv"),
    (put("tools", value={}), "tools"),
    (put("tools", value=["f"]), "tools[0]"),
    (put("tools", value=[{"f": deep()}]), "tools[0]"),
]


@pytest.mark.parametrize(("change", "place"), HOSTILE)
def test_the_key_at_fault_is_named(
    saved: Path, tiny: Generator, change: Callable[[Any], None], place: str
) -> None:
    content = json.loads(saved.read_text(encoding="utf-8"))
    change(content)
    saved.write_text(json.dumps(content), encoding="ascii")
    with pytest.raises(ChatFileError) as caught:
        tiny.load_chat(saved)
    assert caught.value.place == place
    assert place in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"\x00" * 100,
        b'{"format": NaN}',
        b'{"format": "phicandle-chat", "version": ' + b"9" * 5000 + b"}",
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"format": "phicandle-chat", "format": "phicandle-chat"}',
    ],
)
def test_a_file_that_is_no_chat_is_refused(saved: Path, tiny: Generator, data: bytes) -> None:
    saved.write_bytes(data)
    with pytest.raises(ChatFileError, match="chat file"):
        tiny.load_chat(saved)


def test_a_file_without_end_is_refused(tiny: Generator) -> None:
    endless = Path("/dev/zero")
    if not endless.exists():
        pytest.skip("needs /dev/zero")
    with pytest.raises(ChatFileError, match="longer than 64 MiB"):
        tiny.load_chat(endless)


def test_any_cut_of_a_file_is_refused(saved: Path, tiny: Generator) -> None:
    data = saved.read_bytes()
    for length in range(0, len(data) - 1, 7):
        saved.write_bytes(data[:length])
        with pytest.raises(ChatFileError):
            tiny.load_chat(saved)
