"""`phicandle bench`: the report adds up. How fast anything is, no test asks."""

from __future__ import annotations

import json
import math
import re
import statistics
import subprocess
import sys
from typing import Any

import pytest


def bench(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs the installed command on the demo."""
    line = [sys.executable, "-m", "phicandle", "bench", "demo", *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return done


def report(*words: object) -> dict[str, Any]:
    """What it writes for programs."""
    answer: dict[str, Any] = json.loads(bench(*words, "--json").stdout)
    return answer


def check_times(times: dict[str, Any], count: int) -> None:
    """The summary of seconds is that of its samples."""
    samples = times["samples_s"]
    assert len(samples) == count
    assert all(sample > 0 for sample in samples)
    assert times["median_s"] == pytest.approx(statistics.median(samples))
    assert times["best_s"] == min(samples)
    assert times["spread"] == pytest.approx((max(samples) - min(samples)) / statistics.median(samples))


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    """A run of everything but the limits, on a few tokens."""
    words = ("-p", "8,24", "-n", 6, "-b", "1,2", "-d", "0,16", "--verify", 3, "-r", 3, "--no-limits")
    return report(*words)


def test_facts_about_machine_and_model(small: dict[str, Any]) -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", small["date"])
    machine, model = small["machine"], small["model"]
    assert machine["cpu"]
    assert machine["tier"]
    assert machine["threads"] >= 1
    assert machine["memory_bytes"] > 0
    assert model["architecture"] == "phi3"
    assert sum(kind["bytes"] for kind in model["types"]) < model["file_bytes"]
    # The embedding is not read whole, and little else is left out.
    assert 0.5 * model["file_bytes"] < model["weight_bytes_per_pass"] < model["file_bytes"]
    assert model["ops_per_token"] < 2 * model["parameters"]
    assert small["repetitions"] == 3
    assert not small["interrupted"]
    assert small["limits"] == {"before": [], "after": []}


def test_every_test_is_there_or_left_out(small: dict[str, Any]) -> None:
    (series,) = small["series"]
    tests = [(test["test"], test["batch"], test["depth"]) for test in series["tests"]]
    # The checks begin after 1 + 6 tokens and take 8 x (3 + 1) more, so they are at 7 + 16 on average.
    assert [test for test in tests if test[1] == 1] == [
        ("prefill", 1, 0), ("prefill", 1, 0), ("decode", 1, 0), ("verify", 1, 23), ("decode", 1, 16), ("verify", 1, 39),
    ]  # fmt: skip
    left_out = [skipped["what"] for skipped in small["skipped"]]
    assert (("decode", 2, 0) in tests) != ("2 sequences together" in left_out)
    assert small["context_length"] == 16 + 1 + 6 + 8 * 4


def test_counts_and_rates_add_up(small: dict[str, Any]) -> None:
    (series,) = small["series"]
    for test in series["tests"]:
        check_times(test["time"], 3)
        rate = test["tokens_per_s"]
        assert rate["median"] * test["time"]["median_s"] == pytest.approx(test["tokens"])
        assert rate["best"] * test["time"]["best_s"] == pytest.approx(test["tokens"])
        assert test["limit"] is None
        if test["test"] == "decode":
            assert test["tokens"] == 6 * test["batch"]
        if test["test"] == "verify":
            check_times(test["step_time"], 3)
            assert test["steps"] == pytest.approx(test["time"]["median_s"] / test["step_time"]["median_s"])
    waits = series["between_passes"]["waits_s"]
    # Six tokens: the prompt's pass gives the first, and five passes follow.
    assert [len(wait) for wait in waits] == [5, 5, 5]
    means = series["between_passes"]["mean"]
    check_times(means, 3)
    assert means["samples_s"] == pytest.approx([statistics.fmean(wait) for wait in waits])
    if sys.platform.startswith("linux"):
        check_times(series["between_passes"]["reader"], 3)
    check_times(series["load"], len(series["load"]["samples_s"]))
    assert 1 <= len(series["load"]["samples_s"]) <= 3


def test_memory_is_planned_and_measured(small: dict[str, Any]) -> None:
    (series,) = small["series"]
    memory = series["memory"]
    planned = memory["planned"]
    parts = ("weights_bytes", "kv_bytes", "scratch_bytes")
    assert planned["total_bytes"] == sum(planned[part] for part in parts) > 0
    assert memory["context_length"] == small["context_length"]
    measured = memory["measured"]
    if not sys.platform.startswith("linux"):
        assert measured is None
        return
    assert measured["anonymous_bytes"] + measured["file_bytes"] > 0
    assert measured["huge_page_bytes"] <= measured["anonymous_bytes"]
    if measured["peak_bytes"] is not None:
        assert measured["peak_bytes"] >= measured["loading_peak_bytes"] > 0


def test_only_what_was_asked_for() -> None:
    (series,) = report("-p", 8, "-r", 1, "--no-limits")["series"]
    assert [test["test"] for test in series["tests"]] == ["prefill"]
    assert series["between_passes"] is None
    (series,) = report("--verify", 2, "-r", 1, "--no-limits")["series"]
    assert [test["test"] for test in series["tests"]] == ["verify"]


def test_limits_and_shares_of_them() -> None:
    answer = report("-p", 32, "-n", 4, "-r", 1)
    (series,) = answer["series"]
    before, after = answer["limits"]["before"], answer["limits"]["after"]
    assert [limit["threads"] for limit in before] == sorted({1, series["threads"]})
    assert [limit["threads"] for limit in after] == [series["threads"]]
    peaks = {}
    for kind in ("read_bytes_per_s", "int8_ops_per_s", "f32_ops_per_s"):
        for limit in before + after:
            samples = limit[kind]["samples"]
            assert min(samples) > 0
            assert limit[kind]["best"] == max(samples)
            assert limit[kind]["median"] == pytest.approx(statistics.median(samples))
        same = [limit[kind]["best"] for limit in before + after if limit["threads"] == series["threads"]]
        peaks[kind] = max(same)
    model = answer["model"]
    for test in series["tests"]:
        limit = test["limit"]
        assert limit["reached"] == pytest.approx(limit["time_s"] / test["time"]["median_s"])
        assert limit["tokens_per_s"] * limit["time_s"] == pytest.approx(test["tokens"])
        passes = test.get("passes", 1)
        read = model["weight_bytes_per_pass"] * passes / peaks["read_bytes_per_s"]
        computed = model["ops_per_token"] * test["tokens"] / peaks["int8_ops_per_s"]
        # Keys, values and the output matrix come on top.
        assert limit["time_s"] >= max(read, computed)
        assert limit["by"] == "bandwidth" if read > 2 * computed else limit["by"] in {"bandwidth", "compute"}
        assert math.isfinite(limit["reached"])


def test_people_get_a_table() -> None:
    done = bench("-p", 8, "-n", 4, "-r", 2, "--no-limits")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("phicandle ")
    heads = [line for line in lines if line.startswith("Measured")]
    assert len(heads) == 1
    assert heads[0].split()[1:3] == ["threads", "median"]
    for name in ("prefill 8 ", "decode 4 ", "between passes ", "load ", "Memory at a context of "):
        assert sum(line.startswith(name) for line in lines) == 1, done.stdout


@pytest.mark.parametrize("words", [("-r", 0), ("-b", 0), ("-t", 0), ("--backend", "magic"), ("-p", "x")])
def test_numbers_that_measure_nothing_are_wrong_usage(words: tuple[object, ...]) -> None:
    assert "error:" in bench(*words, code=2).stderr
