"""benches/compare.py: its file of Phi-3-mini's shape, its way of asking engines, its tables."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import compare
import numpy as np
import phi3_shape
import pytest
import reference.reader as gguf
from comparison import engines, machine, peers, points, record, tables
from comparison.points import BY_NAME, LLAMA, PHICANDLE, POINTS

from phicandle import Generator

ROOT = Path(__file__).resolve().parent.parent
#: Phi-3's shape, small: a super-block or two in every direction, and rows that are no multiple of 16.
SMALL = phi3_shape.Shape("small", layers=9, embd=256, heads=4, ff=512, context=512, vocab=300)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shape") / "small.gguf"
    return phi3_shape.find_or_write(path, SMALL, vocabulary=Path("not there"))


# The file ------------------------------------------------------------------------------------------------------------


def test_the_full_shape_has_the_bytes_of_the_published_file() -> None:
    shape = phi3_shape.Shape()
    by_kind: dict[str, int] = {}
    for tensor in shape.tensors():
        by_kind[tensor.kind] = by_kind.get(tensor.kind, 0) + tensor.n_bytes
    # Sums of kernels.md 1.1; the published file has 2,393,231,072 bytes, metadata included.
    assert shape.matrix_bytes() == 2_391_694_848
    assert shape.decode_bytes() == 2_336_288_256
    assert by_kind["Q5_K"] == 622_854_144
    assert by_kind["Q6_K"] == 330_301_440 + 80_801_280
    assert 2 * shape.layer_macs() == 7_247_757_312
    assert (shape.kv_bytes(), shape.kv_bytes(200_704 / 196_608)) == (393_216, 200_704)


def test_half_of_the_layers_have_more_bits() -> None:
    more = [layer for layer in range(32) if phi3_shape.more_bits(layer, 32)]
    assert more == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]


def test_a_small_one_is_what_it_says(small: Path) -> None:
    file = gguf.read(small)
    expected = {tensor.name: (tensor.kind, tensor.shape[::-1]) for tensor in SMALL.tensors()}
    assert {name: (tensor.kind, tensor.shape) for name, tensor in file.tensors.items()} == expected
    assert file.metadata["phi3.rope.dimension_count"] == 64
    assert len(file.metadata["tokenizer.ggml.tokens"]) == 300
    assert "phi3.attention.sliding_window" not in file.metadata


def test_its_weights_are_even_around_nothing(small: Path) -> None:
    kinds = set()
    for tensor in gguf.read(small).tensors.values():
        values = tensor.values()
        kinds.add(tensor.kind)
        if tensor.kind == "F32":
            assert np.all(np.abs(values - 1) <= 0.1)
            continue
        # Thousands of weights each: their deviation is known to a few per cent, their mean to a hundredth of it.
        assert abs(values.mean()) < 0.02 * phi3_shape.SPREAD, tensor.kind
        assert 0.9 < values.std() / phi3_shape.SPREAD < 1.15, tensor.kind
        assert np.unique(values).size > 1000
    assert kinds == {"F32", "Q4_K", "Q5_K", "Q6_K"}


def test_it_is_the_same_every_time_and_found_again(small: Path, tmp_path: Path, capsys: Any) -> None:
    again = phi3_shape.find_or_write(tmp_path / "again.gguf", SMALL, vocabulary=Path("not there"))
    assert again.read_bytes() == small.read_bytes()
    assert "a made-up vocabulary of 300 entries" in capsys.readouterr().err
    changed = again.stat().st_mtime_ns
    phi3_shape.find_or_write(again, SMALL, vocabulary=Path("not there"))
    assert again.stat().st_mtime_ns == changed
    assert "there already" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["cut", "header"])
def test_a_damaged_one_is_written_again(small: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "damaged.gguf"
    whole = small.read_bytes()
    path.write_bytes(whole[:-1] if damage == "cut" else b"GGUX" + whole[4:])
    phi3_shape.find_or_write(path, SMALL, vocabulary=Path("not there"))
    assert path.read_bytes() == whole
    assert [child.name for child in tmp_path.iterdir()] == ["damaged.gguf"]


def test_phicandle_reads_it_and_writes_nonsense(small: Path) -> None:
    words = [sys.executable, "-m", "phicandle", "show", "--json", str(small)]
    shown = json.loads(subprocess.run(words, capture_output=True, check=True, timeout=60).stdout)
    assert (shown["model"]["architecture"], shown["model"]["layers"]) == ("phi3", 9)
    with Generator(small) as generator:
        tokens = [5, 6, 7]
        assert len(generator.generate(tokens, max_tokens=4, ignore_eos=True).token_ids) == 4


def test_phi_3s_own_vocabulary_goes_in_whole(tmp_path: Path) -> None:
    if not phi3_shape.VOCABULARY.exists():
        print(f"SKIPPED: {phi3_shape.VOCABULARY} is not there", file=sys.__stderr__)
        pytest.skip("SKIPPED: no ../shared/data/phi-3-vocab.gguf")
    path = phi3_shape.find_or_write(tmp_path / "real.gguf", replace(SMALL, layers=1, vocab=32064))
    theirs, ours = gguf.read(phi3_shape.VOCABULARY).metadata, gguf.read(path).metadata
    assert len(ours["tokenizer.ggml.tokens"]) == 32064
    names = {name for name in theirs if name.startswith("tokenizer.")}
    assert {name: ours[name] for name in names} == {name: theirs[name] for name in names}


# Points --------------------------------------------------------------------------------------------------------------


def test_every_name_leads_somewhere() -> None:
    names = {point.name for point in POINTS}
    assert len(names) == len(POINTS)
    for point in POINTS:
        assert point.measure in BY_NAME
        for target in point.targets:
            assert target.kind in {"peer", "own", "share", "most", "file"}
            assert (target.of in names) == (target.kind == "own")
            assert target.at in {"", *names}
    for measure in points.MEASURES:
        assert set(measure.engines) | set(measure.without) <= set(points.ENGINES)
    assert set(points.QUICK) <= set(BY_NAME)


def test_work_is_the_studys() -> None:
    from comparison import models

    sizes = models.phi_sizes()
    bandwidth = 40e9
    # kernels.md 7: tokens a second at 40 GB/s.
    for name, expected in {"decode-2048": 12.7, "decode-4096": 10.2, "decode-4096-q8": 12.7}.items():
        work = points.work(BY_NAME[name], sizes)
        assert BY_NAME[name].tokens() / (work["bytes"] / bandwidth) == pytest.approx(expected, abs=0.06)
    prefill = points.work(BY_NAME["prefill-512"], sizes)
    assert prefill["ops"] / 512 == pytest.approx(7.248e9, rel=1e-3)


# Asking engines ------------------------------------------------------------------------------------------------------

FAKE = """
import os, sys, time
from wire import serve
config = {}
def load(model, threads, **options):
    config.update(options, threads=threads)
    print("an engine's own words")
    return {"load_s": 0.5, "version": "1.0", "system": "x"}
def prefill(tokens):
    if tokens == 13:
        raise ValueError("no such luck")
    if tokens == 14:
        os._exit(3)
    # Without repacking it is twice as fast, with flash attention a little slower than without.
    return {"seconds": (2 if config.get("repack") else 1) * (1.05 if config.get("flash") else 1)}
def verify(depth, guesses, repeats):
    return {"seconds": 0.3, "step_s": 0.2}
serve({"load": load, "prefill": prefill, "verify": verify})
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> engines.Comparison:
    """A comparison whose llama.cpp is a few lines of Python."""
    (tmp_path / "wire.py").write_text((peers.RUNNERS / "wire.py").read_text())
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setattr(engines, "RUNNERS", tmp_path)
    monkeypatch.setattr(engines, "STEAL", 1.0)
    monkeypatch.setitem(engines._SCRIPTS, LLAMA, "fake.py")
    monkeypatch.setattr(engines, "interpreter", lambda _: Path(sys.executable))
    return engines.Comparison(tmp_path, Path(sys.executable), threads=2, rounds=2, engines=(LLAMA,))


def prefill(tokens: int) -> points.Measure:
    return points.Measure("prefill-512", points.PHI, "prefill", {"tokens": tokens})


def test_all_configurations_first_then_those_near_the_best(run: engines.Comparison) -> None:
    run.run([prefill(512), BY_NAME["verify-5"]], Path("model"))
    assert run.missing == []
    assert run.versions == {LLAMA: {"version": "1.0", "system": "x"}}
    taken = [
        (s["round"], s["config"]["repack"], s["config"]["flash"])
        for s in run.samples
        if s["measure"] == "prefill-512"
    ]
    assert taken == [(0, True, False), (0, True, True), (0, False, False), (0, False, True),
                     (1, False, False), (1, False, True)]  # fmt: skip
    assert {s["rate"] for s in run.samples if s["measure"] == "prefill-512" and s["round"]} == {
        512,
        512 / 1.05,
    }
    assert {s["steps"] for s in run.samples if s["measure"] == "verify-5"} == {0.3 / 0.2}
    assert run.runners == {}


@pytest.mark.parametrize(
    ("tokens", "reason"), [(13, "ValueError: no such luck"), (14, "it ended with status 3")]
)
def test_what_an_engine_cannot_do_is_noted_once(run: engines.Comparison, tokens: int, reason: str) -> None:
    run.run([prefill(tokens), BY_NAME["verify-5"]], Path("model"))
    assert [m["measure"] for m in run.missing] == ["prefill-512"]
    assert run.missing[0]["reason"].startswith(reason)
    assert {s["measure"] for s in run.samples} == {"verify-5"}


def test_an_absent_engine_is_a_reason(run: engines.Comparison) -> None:
    run.absent = {"llama-cpp": "it is not installed"}
    run.run([prefill(512)], Path("model"))
    assert run.missing == [{"measure": "prefill-512", "engine": LLAMA, "reason": "it is not installed"}]


def test_an_environment_counts_only_when_its_recipe_is_this_one(tmp_path: Path, capsys: Any) -> None:
    peer = next(peer for peer in peers.PEERS if peer.folder == "mistralrs")
    missing = peers.prepare(tmp_path, (peer.engine,), may_install=False, jobs=1)
    assert list(missing) == ["mistralrs"]
    assert "NOT MEASURED: mistralrs==" in capsys.readouterr().err
    (tmp_path / "mistralrs").mkdir()
    (tmp_path / "mistralrs" / "recipe").write_text("another")
    assert not peer.is_installed(tmp_path)
    (tmp_path / "mistralrs" / "recipe").write_text(peer.recipe())
    assert peers.prepare(tmp_path, (peer.engine,), may_install=False, jobs=1) == {}


def test_children_do_not_inherit_an_engines_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PHICANDLE_ISA", "OMP_NUM_THREADS", "RAYON_NUM_THREADS", "PYTHONPATH"):
        monkeypatch.setenv(name, "1")
    variables = peers.environment({"RAYON_NUM_THREADS": "2"})
    assert variables["RAYON_NUM_THREADS"] == "2"
    assert not {"PHICANDLE_ISA", "OMP_NUM_THREADS", "PYTHONPATH"} & set(variables)


# Records and tables --------------------------------------------------------------------------------------------------


def sample(measure: str, engine: str, number: int = 0, config: Any = None, **fields: float) -> dict[str, Any]:
    return {
        "measure": measure,
        "engine": engine,
        "config": config or {},
        "round": number,
        "steal": 0.0,
        **fields,
    }


def limit(threads: int, read: float, int8: float) -> dict[str, Any]:
    return {
        "threads": threads,
        "read_bytes_per_s": {"samples": [read / 2, read]},
        "int8_ops_per_s": {"samples": [int8, int8 / 2]},
    }


DATA: dict[str, Any] = {
    "format": 1,
    "date": "2026-03-04 10:11 UTC",
    "minutes": 12.0,
    "machine": {"cpu": "A CPU", "cpus": 2, "memory": 16 << 30, "system": "Linux", "flags": []},
    "threads": 2,
    "rounds": 3,
    "busy": 0.0,
    "steal": 0.0,
    "engines": {PHICANDLE: {"version": "0.2.0", "system": ""}, LLAMA: {"version": "0.3.36", "system": ""}},
    "models": {points.PHI: {"file": "phi.gguf", "file_bytes": 2_000_000_000}},
    "limits": [limit(2, 40e9, 1800e9), limit(1, 22e9, 900e9), limit(2, 30e9, 2000e9)],
    "work": {"prefill-512": {"bytes": 2.3e9, "ops": 512 * 7e9}, "decode-128": {"bytes": 16 * 2.4e9, "ops": 16 * 7e9}},
    "samples": [
        *(sample("prefill-512", PHICANDLE, n, rate=rate) for n, rate in enumerate((180.0, 200.0, 150.0))),
        sample("prefill-512", LLAMA, 0, {"repack": True}, rate=60.0),
        sample("prefill-512", LLAMA, 0, {"repack": False}, rate=90.0),
        sample("prefill-512", LLAMA, 1, {"repack": False}, rate=110.0),
        sample("prefill-512-1", PHICANDLE, rate=100.0),
        sample("decode-128", PHICANDLE, rate=15.5, between_s=20e-6),
        sample("decode-128", LLAMA, rate=14.0),
        sample("verify-5", PHICANDLE, steps=1.5, seconds=0.15, step_s=0.1),
        sample("load-repack", PHICANDLE, load_s=1.2, peak=2.2e9),
    ],
    "missing": [{"measure": "decode-2048", "engine": LLAMA, "reason": "it fell over"}],
}  # fmt: skip


@pytest.fixture
def found() -> record.Record:
    return record.Record(copy.deepcopy(DATA))


def point(name: str) -> points.Point:
    return next(point for point in POINTS if point.name == name)


def test_a_figure_is_the_median_of_the_best_configuration(found: record.Record) -> None:
    ours, theirs = found.cell(point("prefill-512"), PHICANDLE), found.cell(point("prefill-512"), LLAMA)
    assert ours == record.Cell(180.0, 200.0, 3, "")
    assert theirs == record.Cell(100.0, 110.0, 2, "repack False")
    assert found.cell(point("decode-2048"), LLAMA) is None
    assert found.reason(point("decode-2048"), LLAMA) == "it fell over"


@pytest.mark.parametrize(
    ("name", "number", "met", "reached"),
    [
        ("prefill-512", 0, True, 1.8),  # 180 against 100
        ("prefill-512", 1, False, 0.63),  # 180 x 7e9 of the 2e12 that was the best of all measurements
        ("prefill-512", 2, False, 1.8),  # 180 against 100 on one thread; 1.9 asked for
        ("decode-128", 0, False, 15.5 / 14),
        ("decode-128", 1, True, 0.93),  # 15.5 x 2.4e9 of 40e9
        ("decode-2048", 0, None, None),
        ("verify-5", 0, False, 1.5),
        ("between", 0, True, 20e-6),
        ("load-repack", 0, True, 1.2),
        ("peak-repack", 0, False, 1.1),
    ],
)
def test_verdicts(
    found: record.Record, name: str, number: int, met: bool | None, reached: float | None
) -> None:
    verdict = found.verdict(point(name), point(name).targets[number])
    assert verdict.met is met
    assert verdict.reached == (None if reached is None else pytest.approx(reached))
    assert ("MISSED by" in verdict.text) == (met is False)
    assert ("not measured" in verdict.text) == (met is None)


def test_a_share_is_of_the_limits_beside_each_sample(found: record.Record) -> None:
    # Shares of 90 %, 72 % and 72 %, whatever the best of all limits was.
    found.data["samples"] = [
        sample(
            "decode-128", PHICANDLE, n, rate=rate, limits=[limit(2, read / 2, 1800e9), limit(2, read, 1800e9)]
        )
        for n, (rate, read) in enumerate(((7.5, 20e9), (3.0, 10e9), (6.0, 20e9)))
    ]
    assert found.share(point("decode-128")) == (pytest.approx(0.72), "read bandwidth")
    del found.data["samples"][2]
    assert found.share(point("decode-128")) == (pytest.approx((0.9 + 0.72) / 2), "read bandwidth")


def test_shortfalls_are_told_in_the_targets_own_terms(found: record.Record) -> None:
    of = point("prefill-512")
    assert (
        found.verdict(of, of.targets[2]).text
        == ">= 1.9 x its own prefill 512, 1 thread: 1.80 x, MISSED by 5%"
    )


def test_the_terminals_table_says_what_was_not_measured(found: record.Record) -> None:
    text = tables.terminal(found)
    assert "llama.cpp: decode-2048: it fell over" in text
    assert "limits with 2 threads: 40.0 GB/s read, 2,000 GOPS int8" in text
    assert "NOT A QUIET MACHINE" not in text
    met, missed, unknown = tables.tally(found)
    assert (met, missed) == (4, 5)
    assert met + missed + unknown == sum(len(point.targets) for point in POINTS)
    found.data["busy"] = 0.3
    assert "NOT A QUIET MACHINE" in tables.terminal(found)


def test_readme_and_record_agree_after_writing_and_not_after_a_change(
    found: record.Record, tmp_path: Path
) -> None:
    readme = tmp_path / "README.md"
    before, after = "# Title\n\n", "\n\n## Next\n"
    readme.write_text(before + tables.readme_block(None) + after)
    tables.check_readme(readme, None)
    with pytest.raises(tables.ReadmeError, match="does not agree with benches/record/r"):
        tables.check_readme(readme, found, "r.json")
    tables.write_readme(readme, found, "r.json")
    tables.check_readme(readme, found, "r.json")
    text = readme.read_text()
    assert text.startswith(before)
    assert text.endswith(after)
    assert (
        "| prefill 512, tok/s | 180 | 100 | 1.80 x llama.cpp | 63% of int8 peak | met, missed by 3%, missed by 5% |"
        in text
    )
    with pytest.raises(tables.ReadmeError):
        tables.check_readme(readme, None)
    readme.write_text(text.replace("| 180 |", "| 190 |"))
    with pytest.raises(tables.ReadmeError):
        tables.check_readme(readme, found, "r.json")


def test_a_readme_without_marks_is_an_error(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# Title\n")
    with pytest.raises(tables.ReadmeError, match="must have one line"):
        tables.write_readme(readme, None)


def test_a_record_comes_back_from_its_file(found: record.Record, tmp_path: Path) -> None:
    for name in ("2026-01-02-cpu.json", "2026-03-04-cpu.json", "2025-12-31-cpu.json"):
        found.write(tmp_path / name)
    (tmp_path / "accuracy.json").write_text("{}")
    newest = record.newest(tmp_path)
    assert newest is not None
    assert newest.name == "2026-03-04-cpu.json"
    assert record.Record.read(newest).data == DATA
    record.Record({**DATA, "date": "2026-03-04 23:59 UTC"}).write(tmp_path / "2026-03-04-another.json")
    assert record.newest(tmp_path) == tmp_path / "2026-03-04-another.json", "the later one of a day"
    assert record.newest(tmp_path / "none") is None
    with pytest.raises(ValueError, match="format 2"):
        record.Record({"format": 2})


def test_show_prints_a_record_and_check_agrees_with_the_readme(
    found: record.Record, tmp_path: Path, capsys: Any
) -> None:
    found.write(tmp_path / "r.json")
    assert compare.main(["--show", str(tmp_path / "r.json")]) == 0
    assert "prefill 512, tok/s" in capsys.readouterr().out
    # The one in this repository.
    assert compare.main(["--check"]) == 0


def test_names_are_picked_by_their_beginnings(capsys: Any) -> None:
    chosen = compare.arguments(["--engines", "llama,phi", "--points", "batch,verify-5"])
    assert chosen.engines == (PHICANDLE, LLAMA)
    assert [measure.name for measure in chosen.measures] == ["batch-4", "batch-8", "batch-16", "verify-5"]
    assert chosen.partial
    assert not compare.arguments([]).partial
    assert [measure.name for measure in compare.arguments(["--quick"]).measures] == list(points.QUICK)
    with pytest.raises(SystemExit):
        compare.arguments(["--engines", "nobody"])
    assert "There is no engine 'nobody'" in capsys.readouterr().err


def test_a_cpus_name_makes_a_files_name() -> None:
    assert machine.slug("AMD EPYC 9R14 (Genoa)") == "amd-epyc-9r14-genoa"
    assert machine.slug("?") == "cpu"
