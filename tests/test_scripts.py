"""The house's own scripts: a gate that cannot fail is no gate."""

from __future__ import annotations

import zipfile
from pathlib import Path

import check_licences
import check_version
import check_wheel
import count
import pytest

ROOT = Path(__file__).resolve().parent.parent

CARGO_LOG = """\
     Running unittests src/lib.rs (target/debug/deps/phicandle-1)
running 3 tests
test a ... ok

successes:

---- a stdout ----
SKIPPED: there is no ../shared/data
SKIPPED: there is no other file

---- b stdout ----
said something

test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

   Doc-tests phicandle
test result: FAILED. 4 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s
"""
PYTEST_LOG = "===== 1 failed, 20 passed, 2 skipped, 1 xfailed, 3 errors in 61.50s (0:01:01) =====\n"


def test_counts_are_added_and_a_test_without_data_is_skipped() -> None:
    assert count.cargo_counts(CARGO_LOG) == (2 + 4 - 1, 1, 1 + 1)
    assert count.pytest_counts(PYTEST_LOG) == (21, 4, 2)
    assert count.skip_lines(CARGO_LOG) == [
        "SKIPPED: there is no ../shared/data",
        "SKIPPED: there is no other file",
    ]


def test_counts_end_with_the_plain_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cargo, python = tmp_path / "cargo.log", tmp_path / "pytest.log"
    cargo.write_text("test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured;\n")
    python.write_text("===== 4 passed in 0.10s =====\n")
    assert count.main([str(cargo), str(python)]) == 0
    assert capsys.readouterr().out == "7 passed, 0 failed, 0 skipped\n"
    python.write_text(PYTEST_LOG)
    assert count.main([str(cargo), str(python)]) == 1


@pytest.mark.parametrize("text", ["", "error: could not compile `phicandle`\n"])
def test_counts_fail_when_a_log_is_missing_or_has_no_result(tmp_path: Path, text: str) -> None:
    cargo, python = tmp_path / "cargo.log", tmp_path / "pytest.log"
    python.write_text(PYTEST_LOG)
    assert count.main([str(cargo), str(python)]) == 2
    cargo.write_text(text)
    assert count.main([str(cargo), str(python)]) == 2


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT", True),
        ("MIT/Apache-2.0", True),
        ("MIT AND GPL-3.0-only", False),
        ("MIT AND Apache-2.0 OR GPL-3.0-only", True),
        ("GPL-3.0-only OR MIT AND LGPL-2.1", False),
        ("(GPL-3.0-only OR MIT) AND Apache-2.0", True),
        ("Apache-2.0 WITH LLVM-exception", False),
        ("MIT)", False),
    ],
)
def test_licence_expressions(expression: str, expected: bool) -> None:
    assert check_licences.permits(expression, {"MIT", "Apache-2.0"}) is expected


def test_licences_and_origins_of_packages() -> None:
    deny = (ROOT / "deny.toml").read_text(encoding="utf-8")
    good = {"name": "a", "version": "1.0.0", "source": check_licences.REGISTRY, "license": "MIT"}
    assert check_licences.problems([good], deny) == []
    for change in ({"license": None}, {"license": "MPL-2.0"}, {"source": "git+https://example.org/a"}):
        assert len(check_licences.problems([good | change], deny)) == 1, change
    assert check_licences.problems([good | {"name": "option-ext", "license": "MPL-2.0"}], deny) == []


def test_versions_must_agree() -> None:
    files = {
        "Cargo.toml": '[package]\nname = "phicandle"\nversion = "1.2.3"\n',
        "Cargo.lock": '[[package]]\nname = "phicandle"\nversion = "1.2.3"\n',
        "pyproject.toml": '[project]\nname = "phicandle"\ndynamic = ["version"]\n\n[tool]\n',
        "CHANGELOG.md": "## [Unreleased]\n\n## [1.2.3] - 2026-01-31\n",
    }
    assert check_version.problems("v1.2.3", files) == []
    assert len(check_version.problems("v1.2.4", files)) == 1
    for name, text in (
        ("Cargo.lock", files["Cargo.lock"].replace("1.2.3", "1.2.2")),
        ("pyproject.toml", files["pyproject.toml"].replace("dynamic", "keywords")),
        ("CHANGELOG.md", "## [Unreleased]\n"),
    ):
        assert len(check_version.problems("v1.2.3", files | {name: text})) == 1, name


def test_a_wheel_with_a_stray_or_missing_file_is_refused(tmp_path: Path) -> None:
    names = [
        "phicandle/__init__.py",
        "phicandle/__main__.py",
        "phicandle/_phicandle.pyi",
        "phicandle/_phicandle.abi3.so",
        "phicandle/demo.gguf",
        "phicandle/py.typed",
        "phicandle-1.dist-info/licenses/LICENSE-MIT",
        "phicandle-1.dist-info/licenses/LICENSE-APACHE",
        "phicandle-1.dist-info/entry_points.txt",
    ]

    def wheel(files: list[str], tag: str = "cp310-abi3") -> Path:
        path = tmp_path / f"phicandle-1-{tag}-linux_x86_64.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name in files:
                archive.writestr(name, "")
        return path

    assert check_wheel.problems(wheel(names)) == []
    assert len(check_wheel.problems(wheel(names[1:]))) == 1
    assert len(check_wheel.problems(wheel([*names, "tests/test_x.py"]))) == 1
    assert len(check_wheel.problems(wheel(names, "cp311-cp311"))) == 1
