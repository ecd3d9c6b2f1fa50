"""benches/concurrency: what its record, page and command line make of samples. No time is measured here."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from comparison.points import PHI, SMOL
from concurrency import __main__ as program
from concurrency import (
    answers,
    callers,
    cancel,
    gaps,
    idle,
    measurement,
    memory,
    page,
    prefix,
    record,
    speculation,
    tick,
    ticker,
)
from concurrency.measurement import Bench, NotMeasuredError, Row, show

ROOT = Path(__file__).resolve().parent.parent
#: Two rounds worked out by hand: 40 and 30 tok/s at once, 10 alone in both, llama.cpp 8 and 12.
CALLERS: dict[str, Any] = {
    "callers": 2,
    "written": 4,
    "rounds": [
        {
            "together": {"seconds": 0.2, "tokens": 8},
            "first_token_s": [0.1, 0.3],
            "alone": [{"seconds": 0.4, "tokens": 4}, {"seconds": 0.4, "tokens": 4}],
            "llama": [{"seconds": 1.0, "tokens": 8}],
        },
        {
            "together": {"seconds": 0.4, "tokens": 12},
            "first_token_s": [0.2, 0.2],
            "alone": [{"seconds": 0.8, "tokens": 8}],
            "llama": [{"seconds": 1.0, "tokens": 12}],
        },
    ],
    "compared": 2,
    "equal": 2,
}
IDLE = {"seconds": 5.0, "loaded_s": 0.0, "used_s": 0.5}


def by_name(rows: list[Row]) -> dict[str, Row]:
    found = {row.what: row for row in rows}
    # A column of a table has one cell for each name.
    assert len(found) == len(rows)
    return found


def result(name: str, model: str = SMOL, **more: Any) -> dict[str, Any]:
    facts = {"measurement": name, "model": model, "date": "2026-01-02 03:04 UTC", "seconds": 1.0}
    return {**facts, "busy": 0.0, "steal": 0.0, **more}


def whole(*results: dict[str, Any]) -> dict[str, Any]:
    facts = {"cpu": "a CPU", "cpus": 2, "memory": 2**33, "system": "a system", "flags": []}
    versions = {"phicandle": "1.2.3", "llama": "llama-cpp-python==4.5.6"}
    return {"format": record.FORMAT, "machine": facts, "threads": 2, **versions, "results": list(results)}


# Rows ----------------------------------------------------------------------------------------------------------------


def test_a_target_is_met_from_the_bound_on() -> None:
    assert [Row("a", value, "x", at_least=3.0).met for value in (2.99, 3.0, 3.01)] == [False, True, True]
    assert [Row("a", value, "x", at_most=2.0).met for value in (1.99, 2.0, 2.01)] == [True, True, False]
    assert Row("a", None, "x", at_most=2.0).met is None
    assert Row("a", 1.0).met is None
    # Growth below zero, and none at all where none is allowed.
    assert Row("a", -0.01, "%", at_most=0.02).met
    assert Row("a", 0.0, at_most=0.0).met
    assert not Row("a", 1.0, at_most=0.0).met


def test_what_was_reached_is_told_as_a_share_of_the_target() -> None:
    assert Row("a", 6.0, "x", at_least=3.0).reached == 2.0
    assert Row("a", 4.0, "x", at_most=2.0).reached == 0.5
    assert Row("a", 0.0, "%", at_most=2.0).reached == float("inf")
    assert Row("a", 0.0, at_most=0.0).reached is None
    assert Row("a", 1.0).reached is None


def test_figures_have_units() -> None:
    shown = [
        show(value, unit)
        for value, unit in (
            (0.1234, "%"),
            (1.0, "%"),
            (0.00005, "%"),
            (2.345, "x"),
            (12.345, "s"),
            (0.0123, "s"),
            (0.0123, "ms"),
            (1.5, "ms"),
            (150.4e6, "MB"),
            (9.87, "tok/s"),
            (987.6, "tok/s"),
            (3.0, ""),
        )
    ]
    assert shown == [
        "12.3 %", "100 %", "0.005 %", "2.35 x", "12.35 s", "0.012 s", "12.3 ms", "1500 ms", "150.4 MB", "9.9 tok/s",
        "988 tok/s", "3",
    ]  # fmt: skip


# Measurements --------------------------------------------------------------------------------------------------------


def test_callers_are_compared_within_a_round() -> None:
    rows = by_name(callers.rows(CALLERS))
    assert rows["all at once"].value == 35.0
    assert rows["one caller alone"].value == 10.0
    # 4 and 3 times; 5 and 2.5 times; 0.3 over 0.2 and 0.2 over 0.2.
    assert rows["at once over one caller alone"].value == 3.5
    assert rows["at once over llama-cpp-python"].value == 3.75
    assert rows["first token, slowest over mean"].value == pytest.approx(1.25)
    assert rows["texts equal to those of one caller alone, share"].met
    torn = callers.rows({**CALLERS, "equal": 1})
    assert by_name(torn)["texts equal to those of one caller alone, share"].met is False


def test_a_missing_engine_is_told_of_where_its_figures_would_be() -> None:
    rounds = [{**one, "llama": []} for one in CALLERS["rounds"]]
    rows = by_name(callers.rows({**CALLERS, "rounds": rounds, "llama_missing": "it is not here"}))
    ratio = rows["at once over llama-cpp-python"]
    assert (ratio.value, ratio.met, ratio.reason, ratio.text) == (
        None,
        None,
        "it is not here",
        "not measured",
    )
    assert rows["at once over one caller alone"].met


def test_the_largest_step_beside_a_prompt_is_told_in_normal_ones() -> None:
    steps = {"before": [0.1, 0.1, 0.3], "beside": [0.1, 0.15, 0.25], "after": [0.1, 0.12, 0.9]}
    one = {**steps, "beside_s": 3.0, "alone_s": 2.0}
    rows = by_name(gaps.rows({"prompt_tokens": 9, "rounds": [one]}))
    assert rows["normal step"].value == 0.1
    largest = rows["largest step beside the prompt, over the normal one"]
    assert largest.value == pytest.approx(2.5)
    assert largest.met is False
    assert rows["the median after it, over the normal one"].value == pytest.approx(1.2)
    assert rows["beside over alone"].value == 1.5
    assert answers.gaps([(1.0, 1), (1.5, 2), (3.5, 1)]) == [0.5, 2.0]


def test_a_warm_turn_is_a_share_of_a_cold_one() -> None:
    chat = {
        "first_s": 9.0, "warm_s": 1.0, "cold_s": 10.0, "fork_s": 2.0, "prompt_tokens": 3000, "cached_tokens": 2900,
        "cold_cached_tokens": 0, "fork_cached_tokens": 2890,
    }  # fmt: skip
    system = {
        "warm_s": 1.0,
        "cold_s": 4.0,
        "cached_tokens": [0, 50],
        "prompt_tokens": [50, 50],
        "equal": True,
    }
    rows = by_name(prefix.rows({"chats": [chat], "systems": [system, {**system, "equal": False}]}))
    assert rows["turn two over cold"].value == 0.1
    assert rows["turn two over cold"].met
    assert rows["without reuse over with it"].value == 4.0
    assert rows["`cached_tokens` of the 16, share of their tokens"].value == 0.5
    assert rows["runs with texts equal to those without reuse"].value == 0.5
    assert rows["runs with texts equal to those without reuse"].met is False


def test_guessing_gains_or_loses_pair_by_pair() -> None:
    pair = {"guessing_tps": 20.0, "plain_tps": 10.0, "accepted": 6, "tokens": 10, "equal": True, "text": ""}
    worst = {**pair, "guessing_tps": 9.6, "accepted": 0}
    rows = by_name(speculation.rows({"tasks": {"edit": [pair], "no repeats": [worst]}}))
    assert (rows["edit: gain"].value, rows["edit: gain"].met) == (2.0, True)
    assert rows["edit: tokens that were guessed"].value == 0.6
    loss = rows["no repeats: loss"]
    assert loss.value == pytest.approx(0.04)
    assert loss.met is False


def test_the_latest_tick_and_the_slowest_stop_are_what_counts() -> None:
    found = {
        "task": [[0.0, 0.004], [0.0, 0.002]],
        "thread": [[0.006, 0.0]],
        "process": [[0.02, 0.0], [0.01, 0.0]],
        "alone": [[0.001]],
    }
    rows = by_name(ticker.rows(found))
    assert rows["ticks beside streams"].value == 6
    assert (rows["of a task: the latest"].value, rows["of a task: the latest"].met) == (0.003, True)
    assert (rows["of a thread: the latest"].value, rows["of a thread: the latest"].met) == (0.006, False)
    # Of another process there is no promise: it is what the system does to anyone.
    assert rows["of another process: the latest"].value == pytest.approx(0.015)
    assert rows["of another process: the latest"].met is None
    stops = [{"phase": phase, "seconds": 0.01} for _, phase in cancel.CASES]
    stops[3]["seconds"] = 0.3
    held = {"stops": stops, "same_next": len(stops), "same_beside": 0, "active": 0, "kv_bytes": 0}
    rows = by_name(cancel.rows(held))
    assert (rows["the slowest"].value, rows["the slowest"].met) == (0.3, False)
    assert rows["neighbours with the text that they have alone"].met is False
    assert rows["next requests with the text that they have alone"].met
    assert rows["keys and values left"].met


def test_a_tick_that_comes_very_late_is_not_made_up_for() -> None:
    late: list[float] = []
    now = time.perf_counter()
    following = tick.note(late, now - 1.0)
    assert late[0] >= 1.0
    assert following >= now + tick.STEP
    # On time, the next is due a step after this one was.
    assert tick.note(late, now + 100.0) == now + 100.0 + tick.STEP
    assert late[1] == 0.0


def test_another_process_ticks_until_its_input_ends() -> None:
    late: list[list[float]] = []
    with ticker._another_process(late):
        time.sleep(10 * tick.STEP)
    assert len(late) == 1
    # A process that starts late ticks once at least, before it looks whether to stop.
    assert late[0]
    assert all(seconds >= 0.0 for seconds in late[0])


def test_memory_is_flat_or_not() -> None:
    samples = [(0, 90), (100, 100), (500, 101), (1000, 101)]
    found = {"requests": 1000, "samples": samples, "failed": []}
    assert by_name(memory.rows(found))["growth"].value == pytest.approx(0.01)
    assert by_name(memory.rows(found))["growth"].met
    grown = {**found, "samples": [*samples, (1000, 103)], "failed": ["an error"]}
    assert [row.met for row in memory.rows(grown)] == [None, None, False, False]


def test_calls_made_together_all_run_and_an_error_is_not_lost() -> None:
    results, seconds = answers.together([lambda i=i: i * i for i in range(5)])  # type: ignore[misc]
    assert results == [0, 1, 4, 9, 16]
    assert seconds > 0

    def fail() -> int:
        raise ValueError("of a thread")

    with pytest.raises(ValueError, match="of a thread"):
        answers.together([lambda: 1, fail])


def test_an_option_that_phicandle_lacks_is_a_reason_and_no_crash(tiny_file: Path) -> None:
    bench = Bench(SMOL, tiny_file, threads=1)
    with pytest.raises(NotMeasuredError, match="no `no_such_option`"):
        bench.open(no_such_option=True)
    with bench.open_forgetful(context_length=64) as generator:
        ids = bench.prose(generator, 20, 20)
        assert ids == bench.prose(generator, 40)[20:]
        with pytest.raises(NotMeasuredError, match="tokens"):
            bench.prose(generator, 10, 10_000_000)


def test_each_measurement_that_is_there_says_what_it_does() -> None:
    there = 0
    for name in measurement.NAMES:
        try:
            module = measurement.find(name)
        except NotMeasuredError as error:
            assert f"benches/concurrency/{name}.py" in str(error)  # noqa: PT017 - some are not there
            continue
        there += 1
        assert module.TITLE
        assert module.ABOUT.endswith(".")
        assert set(module.SECONDS) <= set(measurement.MODELS)
        assert callable(module.measure)
        assert callable(module.rows)
    assert there >= 7
    with pytest.raises(NotMeasuredError, match=r"no benches/concurrency/nothing\.py"):
        measurement.find("nothing")


# Record and page -----------------------------------------------------------------------------------------------------


def test_the_page_says_what_was_met_missed_and_not_measured() -> None:
    found = whole(
        result("callers", found=CALLERS),
        result("callers", PHI, missing="the disk is full"),
        result("idle", found=IDLE, busy=0.5, steal=0.2),
    )
    text = page.write(found)
    # Of four targets of the callers one is at 1.25 x; the idle engine used a tenth of a CPU after use.
    assert (
        "Of 6 targets, 5 were met and 1 missed. NOT MEASURED at all: 16 callers at once, phi-3-mini shape;"
        in " ".join(text.split())
    )
    assert "| at once over one caller alone | 3.5 x | >= 3 x |" in text
    assert "| of one CPU, after use | **10 %** | <= 0.1 % |" in text
    assert "- phi-3-mini shape: NOT MEASURED: the disk is full." in text
    assert "- SmolLM2-135M: NOT A QUIET MACHINE: 50% busy" in text
    assert "## An idle engine" in text
    assert "- SmolLM2-135M: NOT MEASURED: the record has no run of it." in text


def test_models_share_a_table() -> None:
    quick = {**IDLE, "used_s": 0.0}
    text = page.write(whole(result("idle", PHI, found=quick), result("idle", found=IDLE)))
    assert "| | phi-3-mini shape | SmolLM2-135M | target |" in text
    assert "| of one CPU, after use | 0 % | **10 %** | <= 0.1 % |" in text


def test_a_later_run_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    old = whole(result("idle", found=IDLE), result("callers", found=CALLERS))
    new = whole(result("idle", found={**IDLE, "used_s": 0.0}))
    joined = record.joined(old, new)
    assert [one["measurement"] for one in joined["results"]] == ["callers", "idle"]
    assert joined["results"][1]["found"]["used_s"] == 0.0
    assert record.joined(None, new) == new
    with pytest.raises(ValueError, match="another threads"):
        record.joined({**old, "threads": 4}, new)
    path = tmp_path / "concurrency.json"
    assert record.read(path) is None
    record.write(joined, path)
    assert record.read(path) == joined
    path.write_text(json.dumps({**joined, "format": 9}))
    with pytest.raises(ValueError, match="format 9"):
        record.read(path)


def test_the_record_is_not_taken_for_one_of_speeds() -> None:
    from comparison.record import FOLDER

    assert record.RECORD.parent == FOLDER
    assert not record.RECORD.name[0].isdigit()


def test_the_page_of_this_repository_is_what_its_record_says() -> None:
    # By the interpreter of the tests, without phicandle's help: no measurement may need it for its rows.
    words = [sys.executable, "-I", "-S", str(ROOT / "benches" / "concurrency"), "--check"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_page_that_was_changed_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    changed = tmp_path / "concurrency.md"
    changed.write_text(page.write(None) + "And more.\n")
    monkeypatch.setattr(page, "PAGE", changed)
    assert program.check(None) == 1
    assert "run benches/concurrency --write-docs" in capsys.readouterr().err
    changed.write_text(page.write(None))
    assert program.check(None) == 0


def test_the_command_line_names_measurements_and_models(capsys: Any) -> None:
    chosen = program.arguments(["--only", "idle,gaps", "--model", "smol"])
    assert (chosen.names, chosen.models, chosen.partial) == (["idle", "gaps"], [SMOL], True)
    assert program.arguments(["--model", "phi"]).models == [PHI]
    assert not program.arguments([]).partial
    for words, complaint in (
        (["--only", "speed"], "There is no measurement 'speed'"),
        (["--model", "gpt"], "There is no model 'gpt'"),
        (["--quick", "--keep"], "--quick measures too little"),
    ):
        with pytest.raises(SystemExit):
            program.arguments(words)
        assert complaint in capsys.readouterr().err


def test_idle_shares_are_of_one_cpu() -> None:
    loaded, used = idle.rows(IDLE)
    assert (loaded.value, loaded.met) == (0.0, True)
    assert (used.value, used.met) == (0.1, False)


def test_a_process_of_its_own_measures_and_answers(tiny_file: Path) -> None:
    from concurrency.plan import Plan, Run

    run = Run(Path(sys.executable), llama=None, threads=1, quick=True)
    for name in ("generators", "callers"):
        found = run.take(Plan(name, SMOL), tiny_file)
        assert "missing" not in found
        rows = by_name(measurement.find(name).rows(found["found"]))
        assert all(row.value is not None or "not installed" in row.reason for row in rows.values())
    lost = run.take(Plan("nothing", SMOL), tiny_file)
    assert "no benches/concurrency/nothing.py" in lost["missing"]
