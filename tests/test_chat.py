"""Chats: what becomes part of the conversation, in which tokens, and what is left out when it is too long."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import PROMPT
from gguf_files import write_tiny
from test_stream import ENDLESS, LONG_PROMPT, idle

from phicandle import (
    Chat,
    ChatBusyError,
    ContextOverflowError,
    Dropped,
    GenerationCancelled,
    GenerationTimeout,
    Generator,
    InvalidParameterError,
    PhicandleError,
    SamplingParams,
    TemplateError,
)

SHORT: dict[str, Any] = {"max_tokens": 6, "ignore_eos": True, "seed": 4}


def roles(chat: Chat) -> list[str]:
    return [message["role"] for message in chat.messages]


def test_a_conversation_is_what_was_said(demo: Generator) -> None:
    chat = demo.chat("Write a haiku.")
    answers = [chat.send(f"a haiku about {subject}", seed=1) for subject in ("rain", "snow", "ice")]
    assert chat.messages == [
        message
        for subject, answer in zip(("rain", "snow", "ice"), answers, strict=True)
        for message in (
            {"role": "user", "content": f"a haiku about {subject}"},
            {"role": "assistant", "content": answer.text},
        )
    ]
    assert chat.system == "Write a haiku."
    assert chat.dropped == Dropped()
    assert not chat.dropped
    assert "6 messages" in repr(chat)
    assert "answering" not in repr(chat)


def test_an_answer_goes_to_the_end_of_the_turn(tiny: Generator) -> None:
    # A random model may never end its turn; the default of Generator.generate would end it at 100 tokens.
    answer = tiny.chat().send(
        PROMPT, seed=1, timeout=5.0, logit_bias=dict.fromkeys(tiny.tokenizer.eos_ids, -100.0)
    )
    assert len(answer.token_ids) > 100
    assert len(tiny.chat().send(PROMPT, SamplingParams(ignore_eos=True)).token_ids) == 100
    assert len(tiny.chat().send(PROMPT, max_new_tokens=3, ignore_eos=True).token_ids) == 3


def test_a_turn_is_answered_as_the_same_messages_would_be(tiny: Generator) -> None:
    chat = tiny.chat("Be brief.", [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    answer = chat.send("c", **SHORT)
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    assert tiny.generate(messages, **SHORT).token_ids == answer.token_ids
    # A system message at the beginning of the messages is the system message.
    assert tiny.chat(messages=messages[:3]).send("c", **SHORT).token_ids == answer.token_ids
    assert tiny.chat(messages=messages[:3]).system == "Be brief."


@pytest.mark.parametrize("seed", range(6))
def test_every_prompt_begins_with_all_that_was_held_before(tiny: Generator, seed: int) -> None:
    """The random model writes tokens that no tokenizer would choose; they must come back as they were."""
    chat = tiny.chat("Be brief.")
    messages: list[dict[str, Any]] = [{"role": "system", "content": "Be brief."}]
    # One of them in the middle of a text has no text itself.
    special = set(tiny.tokenizer.special.values()) - set(tiny.tokenizer.eos_ids)
    bias = dict.fromkeys(special, -100.0)
    held: list[int] = []
    for turn in range(3):
        messages.append({"role": "user", "content": f"and {turn}?"})
        prompt = tiny.tokenizer.apply_chat_template(messages, tokenize=True)
        assert prompt[: len(held)] == held
        answer = chat.send(f"and {turn}?", max_tokens=12, seed=seed, logit_bias=bias)
        assert answer.usage.prompt_tokens == len(prompt)
        text_ids = answer.token_ids if answer.finish_reason == "length" else answer.token_ids[:-1]
        held = [*prompt, *text_ids]
        messages.append({"role": "assistant", "content": answer.text, "token_ids": answer.token_ids})


def test_what_was_held_is_not_read_again(tiny_file: Path) -> None:
    with Generator(tiny_file) as generator:
        special = set(generator.tokenizer.special.values())
        chat = generator.chat("Be brief.")
        held = 0
        for turn in range(4):
            text = f"{turn} " + "ice hockey " * 15
            usage = chat.send(text, max_tokens=70, seed=turn, logit_bias=dict.fromkeys(special, -100.0)).usage
            # Whole blocks of 64 tokens, of all but the last token of the answer, which was never read.
            assert usage.cached_tokens >= max(held - 1, 0) // 64 * 64
            held = usage.total_tokens
        assert held > 400
        # A fork begins with the same, and so does the Chat after an undo.
        assert chat.fork().send("and?", **SHORT).usage.cached_tokens >= (held - 1) // 64 * 64
        chat.undo()
        assert chat.send(text, **SHORT).usage.cached_tokens >= 256


def test_token_ids_of_a_message_are_checked(tiny: Generator) -> None:
    def length(**extra: Any) -> int:
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "ice", **extra}]
        return len(tiny.tokenizer.apply_chat_template(messages, tokenize=True))

    letters = [token for letter in "ice" for token in tiny.tokenizer.encode(letter, bos=False)]
    assert tiny.tokenizer.decode(letters) != "ice" or length(token_ids=letters) >= length()
    # Ids of another text, and those that are none of this vocabulary, leave the text as it is.
    for ids in (None, [], tiny.tokenizer.encode("snow"), [2**32 - 1]):
        assert length(token_ids=ids) == length()
    for ids in ("ice", [-1], [1.5], [2**32], ["a"], {"a": 1}, [[1]]):
        with pytest.raises(InvalidParameterError, match="token_ids"):
            length(token_ids=ids)


def test_forks_go_their_own_ways(tiny: Generator) -> None:
    chat = tiny.chat("Be brief.")
    chat.send("a", **SHORT)
    fork = chat.fork()
    assert fork.messages == chat.messages
    same = [each.send("b", **SHORT).token_ids for each in (chat, fork)]
    assert same[0] == same[1]
    fork.send("c", **SHORT)
    fork.system = "Be long."
    assert (len(chat.messages), len(fork.messages)) == (4, 6)
    assert chat.system == "Be brief."


def test_undo_takes_a_whole_turn(tiny: Generator) -> None:
    chat = tiny.chat()
    assert chat.undo() == []
    chat.send("a", **SHORT)
    before = chat.messages
    chat.send("b", **SHORT)
    chat.send({"role": "tool", "content": "42"}, **SHORT)
    undone = chat.undo()
    assert [message["role"] for message in undone] == ["user", "assistant", "tool", "assistant"]
    assert chat.messages == before
    assert chat.send("b", **SHORT).text == undone[1]["content"]


def test_messages_are_copies(tiny: Generator) -> None:
    given: list[dict[str, Any]] = [{"role": "user", "content": "a", "tags": ["x"]}]
    chat = tiny.chat(messages=given)
    given[0]["tags"].append("y")
    chat.messages[0]["tags"].append("z")
    chat.messages.clear()
    assert chat.messages == [{"role": "user", "content": "a", "tags": ["x"]}]


def test_a_stream_becomes_a_turn_when_it_ends(tiny: Generator) -> None:
    chat = tiny.chat()
    stream = chat.stream("a", **SHORT)
    assert chat.messages == []
    assert "answering" in repr(chat)
    text = "".join(stream)
    assert chat.messages[1] == {"role": "assistant", "content": text, "finish_reason": "length"}
    assert list(stream) == []
    assert stream.result().text == text
    assert chat.stream("b", **SHORT).result().text == chat.messages[-1]["content"]
    assert len(chat.messages) == 4


@pytest.mark.parametrize("way", ["break", "with", "close", "cancel", "cancel and read", "timeout", "chat"])
def test_a_stream_that_is_cut_short_leaves_what_was_taken(tiny: Generator, way: str) -> None:
    chat = tiny.chat()
    taken = ""
    if way == "break":
        for chunk in chat.stream("a", **ENDLESS, seed=1):
            taken += chunk
            if len(taken) > 20:
                break
        gc.collect()
    elif way == "timeout":
        stream = chat.stream("a", **ENDLESS, seed=1, timeout=0.2)
        taken = "".join(stream)
    else:
        with chat.stream("a", **ENDLESS, seed=1) as stream:
            for chunk in stream:
                taken += chunk
                if len(taken) > 20:
                    break
            if way == "close":
                stream.close()
            elif way == "cancel":
                stream.cancel()
                assert chat.messages[1]["content"] == taken
            elif way == "cancel and read":
                stream.cancel()
                taken += "".join(stream)
            elif way == "chat":
                chat.close()
    reason = "timeout" if way == "timeout" else "cancelled"
    assert chat.messages == [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": taken, "finish_reason": reason},
    ]
    assert idle(tiny)
    # The conversation goes on, as it would from the messages.
    assert chat.send("b", **SHORT).finish_reason == "length"
    assert len(chat.messages) == 4


def test_nothing_said_is_no_turn(tiny: Generator) -> None:
    chat = tiny.chat()
    chat.stream(LONG_PROMPT, **ENDLESS).close()
    assert chat.messages == []
    assert chat.send(LONG_PROMPT, **ENDLESS, timeout=0.001).text == ""
    assert chat.messages == []


def test_an_error_leaves_the_conversation_as_it_was(tiny: Generator, tiny_file: Path) -> None:
    with Generator(tiny_file) as own:
        chat = own.chat("Be brief.")
        chat.send("a", **SHORT)
        before = chat.messages
        bad: list[tuple[Any, dict[str, Any], type[PhicandleError]]] = [
            ("", {}, InvalidParameterError),
            (7, {}, InvalidParameterError),
            ("\ud800", {}, InvalidParameterError),
            ({"role": "user"}, {}, InvalidParameterError),
            ("b", {"temperature": -1.0}, InvalidParameterError),
            ("b", {"temperatur": 1.0}, InvalidParameterError),
            ("b", {"n": 2}, InvalidParameterError),
            ("b " * 9000, {}, ContextOverflowError),
        ]
        for said, overrides, error in bad:
            for method in (chat.send, chat.stream):
                with pytest.raises(error):
                    method(said, **overrides)
            assert chat.messages == before
        stream = chat.stream("b", **ENDLESS)
        next(stream)
        own.close()
        with pytest.raises(GenerationCancelled):
            for _ in stream:
                pass
        assert chat.messages == before


def test_a_wait_that_runs_out_keeps_the_turn_open(tiny: Generator) -> None:
    chat = tiny.chat()
    with chat.stream("a", **ENDLESS) as stream:
        with pytest.raises(GenerationTimeout):
            stream.result(timeout=0.02)
        for use in (lambda: chat.send("b"), chat.undo, lambda: setattr(chat, "system", "x")):
            with pytest.raises(ChatBusyError, match="being written"):
                use()
        fork = chat.fork()
        assert fork.messages == []
        assert fork.send("b", **SHORT).finish_reason == "length"
        stream.cancel()
        stream.result()
    assert len(chat.messages) == 2


def test_two_threads_cannot_speak_at_once(tiny: Generator) -> None:
    chat = tiny.chat()
    start = threading.Barrier(6)
    outcomes: list[str] = []

    def speak() -> None:
        start.wait()
        try:
            chat.send(PROMPT, max_tokens=200, ignore_eos=True)
            outcomes.append("said")
        except ChatBusyError:
            outcomes.append("busy")

    threads = [threading.Thread(target=speak) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("said") * 2 == len(chat.messages) >= 2
    assert len(outcomes) == 6
    assert roles(chat) == ["user", "assistant"] * outcomes.count("said")


def test_a_chat_in_tasks(tiny: Generator) -> None:
    async def main() -> None:
        chat = tiny.chat()
        answer = await chat.asend("a", **SHORT)
        assert chat.messages[1]["content"] == answer.text
        with pytest.raises(ChatBusyError):
            await asyncio.gather(chat.asend("b", **ENDLESS, timeout=0.3), chat.asend("c"))
        while True:
            try:
                chat.undo()
                break
            except ChatBusyError:
                await asyncio.sleep(0.01)
        before = chat.messages
        # A task that is cancelled has seen nothing.
        task = asyncio.create_task(chat.asend("b", **ENDLESS))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert chat.messages == before
        with pytest.raises(InvalidParameterError):
            await chat.asend("b", temperature=-1.0)
        taken = ""
        async with chat.astream("b", **ENDLESS) as stream:
            async for chunk in stream:
                taken += chunk
                if len(taken) > 20:
                    break
        assert chat.messages[-1] == {"role": "assistant", "content": taken, "finish_reason": "cancelled"}
        assert (await chat.astream("c", **SHORT).result()).text == chat.messages[-1]["content"]
        taken = ""
        async for chunk in chat.astream("d", **SHORT):
            taken += chunk
        assert chat.messages[-1]["content"] == taken

    asyncio.run(main())
    assert idle(tiny)


def test_forks_of_one_chat_are_answered_together(tiny: Generator) -> None:
    chat = tiny.chat("Be brief.")
    chat.send("a", **SHORT)
    options = {"max_tokens": 40, "ignore_eos": True, "seed": 3}
    alone = [chat.fork().send(f"and {number}?", **options).text for number in range(8)]
    together: dict[int, str] = {}

    def ask(number: int) -> None:
        fork = chat.fork()
        together[number] = fork.send(f"and {number}?", **options).text
        assert len(fork.messages) == 4

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[number] for number in range(8)] == alone
    assert len(chat.messages) == 2


CHILD = """
import gc, os, sys
from phicandle import ForkError, Generator
chat = Generator(sys.argv[1]).chat()
chat.send("a", max_tokens=2)
stream = chat.stream("b", max_tokens=None, ignore_eos=True)
next(stream)
child = os.fork()
if child == 0:
    code = 1
    try:
        stream.close()
        chat.fork().send("c")
    except ForkError:
        code = 0
    del stream
    gc.collect()
    os._exit(code)
_, status = os.waitpid(child, 0)
stream.close()
print(os.waitstatus_to_exitcode(status), [message["role"] for message in chat.messages])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_chat_in_a_forked_child_says_so(tiny_file: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", CHILD, str(tiny_file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "0 ['user', 'assistant', 'user', 'assistant']\n", done.stderr


def test_the_template_does_not_see_the_mark(tmp_path: Path) -> None:
    path = tmp_path / "keys.gguf"
    write_tiny(
        path, template="{% for m in messages %}<|user|>{{ m | list | join }}<|end|>{% endfor %}<|assistant|>"
    )
    with Generator(path) as generator:
        chat = generator.chat()
        chat.send("a", **SHORT)
        assert chat.messages[-1]["finish_reason"] == "length"
        plain = [{"role": message["role"], "content": message["content"]} for message in chat.messages]
        length = len(generator.tokenizer.apply_chat_template([*plain, plain[0]], tokenize=True))
        assert chat.send("a", **SHORT).usage.prompt_tokens == length


def test_tools_reach_the_template(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    path = tmp_path / "tools.gguf"
    turns = "{% for m in messages %}<|user|>{{ m.content }}<|end|>{% endfor %}"
    template = turns + "{{ tools | tojson if tools else '' }}<|assistant|>"
    write_tiny(path, template=template)
    with Generator(path) as generator:
        plain = generator.chat().send("a", **SHORT).usage.prompt_tokens
        chat = generator.chat(tools=[tool])
        assert chat.send("a", **SHORT).usage.prompt_tokens > plain
        assert chat.fork().send("b", **SHORT).usage.prompt_tokens > plain
        for tools in ("weather", [1], [{"a": object()}]):
            with pytest.raises(InvalidParameterError):
                generator.chat(tools=tools)  # type: ignore[arg-type]
    write_tiny(path, template=template.replace("tools", "nothing"))
    with Generator(path) as generator, pytest.raises(TemplateError, match="no tools"):
        generator.chat(tools=[tool]).send("a")


def test_arguments_of_a_chat_are_checked(tiny: Generator) -> None:
    for system, messages in ((7, ()), ("\ud800", ()), (None, "a"), (None, [{"role": "user"}]), (None, 7)):
        with pytest.raises(InvalidParameterError):
            tiny.chat(system, messages)  # type: ignore[arg-type]
    chat = tiny.chat()
    with pytest.raises(InvalidParameterError):
        chat.system = 7  # type: ignore[assignment]
    with pytest.raises(TypeError, match="Save it"):
        pickle.dumps(chat)
    with pytest.raises(TypeError):
        copy.copy(chat)
    with chat as same:
        assert same is chat


@pytest.fixture(scope="module")
def narrow(tiny_file: Path) -> Iterator[Generator]:
    """A generator with a context of 256 tokens."""
    with Generator(tiny_file, context_length=256) as generator:
        yield generator


def test_a_long_chat_goes_on_without_its_oldest_turns(
    narrow: Generator, tiny: Generator, caplog: pytest.LogCaptureFixture
) -> None:
    chat = narrow.chat("Be brief.")
    options: dict[str, Any] = {**SHORT, "max_tokens": 16}
    said: list[dict[str, Any]] = []
    seen: list[Dropped] = []
    with caplog.at_level(logging.INFO, logger="phicandle"):
        for turn in range(12):
            text = f"{turn} ice hockey"
            answer = chat.send(text, **options, overflow="drop_oldest_turns")
            assert answer.usage.prompt_tokens + 16 <= 256
            assert answer.dropped == chat.dropped
            seen.append(answer.dropped)
            # The same model with a longer context sees what it would if the dropped turns had never been.
            said.append({"role": "user", "content": text})
            rest = [{"role": "system", "content": "Be brief."}, *said[2 * answer.dropped.turns :]]
            assert tiny.generate(rest, **options).token_ids == answer.token_ids
            said.append({"role": "assistant", "content": answer.text, "token_ids": answer.token_ids})
    turns = [dropped.turns for dropped in seen]
    assert turns == sorted(turns)
    assert turns[0] == 0 < turns[-1] < 12
    assert all(bool(dropped) == (dropped.turns > 0) == (dropped.tokens > 0) for dropped in seen)
    # The Chat forgets nothing: what was left out is its messages still.
    assert len(chat.messages) == 24
    assert any("drop_oldest_turns" in record.message for record in caplog.records)
    with pytest.raises(ContextOverflowError):
        chat.send("more", **SHORT)
    assert len(chat.messages) == 24


def test_the_middle_of_a_long_text_is_cut(narrow: Generator) -> None:
    text = "begin " + "ice " * 500 + "end"
    for prompt in (text, [{"role": "user", "content": text}], narrow.tokenizer.encode(text)):
        with pytest.raises(ContextOverflowError):
            narrow.generate(prompt)
        answer = narrow.generate(prompt, **SHORT, overflow="truncate_middle")
        assert 200 < answer.usage.prompt_tokens <= 250
        assert answer.dropped.turns == 0
        assert answer.dropped.tokens > 200
        stream = narrow.stream(prompt, **SHORT, overflow="truncate_middle")
        assert stream.partial().dropped == answer.dropped
        assert stream.result().dropped == answer.dropped
    # Nothing can be dropped of a single turn, nor of raw text.
    for prompt, template in ((text, None), (text, False)):
        with pytest.raises(ContextOverflowError) as caught:
            narrow.generate(prompt, template=template, overflow="drop_oldest_turns")
        assert caught.value.limit == 256
    chat = narrow.chat()
    assert chat.send(text, **SHORT, overflow="truncate_middle").dropped.tokens > 200
    assert chat.dropped.tokens > 200
    assert chat.messages[0]["content"] == text


def test_policies_have_names(narrow: Generator) -> None:
    assert SamplingParams(overflow="drop_oldest_turns").overflow == "drop_oldest_turns"
    with pytest.raises(InvalidParameterError, match="truncate_middle") as caught:
        SamplingParams(overflow="truncate")  # type: ignore[arg-type]
    assert caught.value.parameter == "overflow"
    assert not narrow.generate("a", **SHORT, overflow="truncate_middle").dropped
    assert pickle.loads(pickle.dumps(Dropped(turns=1, tokens=5))) == Dropped(turns=1, tokens=5)
