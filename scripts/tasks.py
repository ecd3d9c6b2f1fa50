"""What each `make` target does, for every platform: `python3 scripts/tasks.py TARGET [ARGUMENTS]`.

Nothing but Rust and Python 3.10 or later is expected on the machine. Each target makes the virtual environment that it
needs (`.venv-demo`, `.venv-test`, `.venv-bench`) and installs the tools that pyproject.toml pins. The demo and the
tests share one Cargo profile (dev) and one target folder, so nothing is built twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import check_licences
import check_wheel
import count

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
WORK = TARGET / "house"
CARGO_LOG = WORK / "cargo-test.log"
PYTEST_LOG = WORK / "pytest.log"
ALLOWLIST = ROOT / "tests" / "stubtest-allowlist.txt"

# `pip install --group` came with 25.1; the pip inside a new environment may be older.
PIP = "pip==26.3"
# Where threads meet, in every order: a crate of its own, which builds without Candle.
SCHEDULES = ROOT / "tests" / "schedules" / "Cargo.toml"
# Every set of Cargo features that builds offline on any platform. The devices need their vendors' toolchains.
FEATURE_SETS: tuple[tuple[str, ...], ...] = (
    (),
    ("--no-default-features",),
    ("--no-default-features", "--features", "hub"),
    ("--no-default-features", "--features", "python"),
)
DEVICE_FEATURES = {"cuda", "metal"}
TUTORIAL_PROMPT = "<|user|>\nWrite a haiku about ice hockey<|end|>\n<|assistant|>"


class TaskError(Exception):
    """A task that failed, in a sentence for the person at the terminal."""


def say(text: str) -> None:
    """One line for the person who waits; standard output stays free for what was asked for."""
    print(text, file=sys.stderr, flush=True)


def environment(venv: Path | None = None) -> dict[str, str]:
    """The environment for commands: none of the caller's Python settings, `venv` first on the path."""
    variables = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONHOME", "CONDA_PREFIX"}}
    variables["CARGO_TARGET_DIR"] = str(TARGET)
    variables["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    if venv is not None:
        variables["VIRTUAL_ENV"] = str(venv)
        variables["PATH"] = f"{executable(venv, 'python').parent}{os.pathsep}{variables.get('PATH', '')}"
    return variables


def executable(venv: Path, name: str) -> Path:
    """A program of a virtual environment."""
    return venv / "Scripts" / f"{name}.exe" if os.name == "nt" else venv / "bin" / name


def run(
    command: Sequence[str | Path], *, venv: Path | None = None, cwd: Path = ROOT, log: Path | None = None
) -> None:
    """Run a command, shown first; with `log`, its output goes to that file as well as to the terminal."""
    words = [str(word) for word in command]
    say("$ " + " ".join(word if re.fullmatch(r"[\w./=:,+-]+", word) else repr(word) for word in words))
    sys.stdout.flush()
    try:
        if log is None:
            status = subprocess.run(words, cwd=cwd, env=environment(venv), check=False).returncode
        else:
            status = run_logged(words, cwd, environment(venv), log)
    except FileNotFoundError:
        hint = " Install Rust with rustup first." if words[0] == "cargo" else ""
        raise TaskError(f"The program {words[0]!r} was not found.{hint}") from None
    if status:
        raise TaskError(f"`{words[0]}` ended with status {status}.")


def run_logged(words: list[str], cwd: Path, variables: dict[str, str], log: Path) -> int:
    """Like `subprocess.run`, appending each line to `log` as it is printed."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("ab") as file,
        subprocess.Popen(
            words, cwd=cwd, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as child,
    ):
        if child.stdout is None:
            raise TaskError("The command's output could not be read.")
        for line in child.stdout:
            file.write(line)
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
    return child.returncode


def make_venv(name: str, group: str, *, fresh: bool = False) -> Path:
    """The virtual environment `name` with a dependency group of pyproject.toml; made again when its recipe changed."""
    venv = ROOT / name
    python = executable(venv, "python")
    recipe = f"{sys.version}\n{PIP}\n{group}\n{(ROOT / 'pyproject.toml').read_text(encoding='utf-8')}"
    stamp = hashlib.sha256(recipe.encode()).hexdigest()
    stamp_file = venv / "recipe"
    if not fresh and python.exists() and stamp_file.exists() and stamp_file.read_text() == stamp:
        return venv
    say(f"Making {name} with Python {sys.version.split()[0]} and the tools that pyproject.toml pins.")
    try:
        run([sys.executable, "-m", "venv", "--clear", venv])
    except TaskError:
        raise TaskError(
            "This Python cannot make virtual environments. On Debian and Ubuntu, install python3-venv; "
            "or name another Python: make PYTHON=/path/to/python3 …"
        ) from None
    run([python, "-m", "pip", "install", "--quiet", PIP])
    run([python, "-m", "pip", "install", "--quiet", "--group", f"pyproject.toml:{group}"])
    stamp_file.write_text(stamp)
    return venv


def tools() -> Path:
    """The environment of tests and linters."""
    return make_venv(".venv-test", "dev")


def cargo_metadata() -> dict[str, object]:
    """This package's own entry of `cargo metadata`."""
    output = subprocess.run(
        ["cargo", "metadata", "--locked", "--no-deps", "--format-version", "1"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        env=environment(),
    ).stdout
    package: dict[str, object] = json.loads(output)["packages"][0]
    return package


# Lint ----------------------------------------------------------------------------------------------------------------


def check_format() -> None:
    """rustfmt and ruff, changing nothing."""
    run(["cargo", "fmt", "--check"])
    run(["cargo", "fmt", "--check", "--manifest-path", SCHEDULES])
    run([executable(tools(), "ruff"), "format", "--check", "."])


def check_clippy() -> None:
    """Clippy on every set of features, warnings as errors; a feature in no set is an error too."""
    declared = cargo_metadata()["features"]
    if not isinstance(declared, dict):
        raise TaskError("cargo metadata has no table of features.")
    checked = set(declared.get("default", ())) | {"default"} | DEVICE_FEATURES
    for flags in FEATURE_SETS:
        if "--features" in flags:
            checked |= set(flags[-1].split(","))
    if missing := sorted(set(declared) - checked):
        raise TaskError(
            f"Cargo features that no lint builds: {', '.join(missing)}. Add them to FEATURE_SETS."
        )
    for flags in FEATURE_SETS:
        run(["cargo", "clippy", "--locked", "--all-targets", *flags, "--", "-D", "warnings"])


def check_docs() -> None:
    """rustdoc, whose broken links are errors."""
    os.environ["RUSTDOCFLAGS"] = "-D warnings"
    run(["cargo", "doc", "--locked", "--no-deps", "--lib"])


def check_python() -> None:
    """ruff's rules and mypy --strict on the package, its stubs, the typing tests and the scripts."""
    venv = tools()
    run([executable(venv, "ruff"), "check", "."])
    run([executable(venv, "python"), "-m", "mypy"])


def check_dependencies() -> None:
    """Each dependency's licence and origin."""
    if check_licences.main([]):
        raise TaskError("A dependency's licence or origin is not allowed.")


LINT: dict[str, Callable[[], None]] = {
    "Format: rustfmt, ruff": check_format,
    "Clippy, every feature set": check_clippy,
    "Rust documentation": check_docs,
    "Python: ruff, mypy --strict": check_python,
    "Licences of dependencies": check_dependencies,
}


# Tests ---------------------------------------------------------------------------------------------------------------


def test_rust() -> None:
    """Rust tests of the default features, documentation tests too; --show-output lets `SKIPPED:` lines be seen."""
    CARGO_LOG.unlink(missing_ok=True)
    run(["cargo", "test", "--locked", "--no-fail-fast", "--", "--show-output"], log=CARGO_LOG)


def test_schedules() -> None:
    """The places where threads meet, in every order of their steps."""
    command: list[str | Path] = ["cargo", "test", "--locked", "--manifest-path", SCHEDULES]
    run([*command, "--target-dir", TARGET / "schedules", "--", "--show-output"], log=CARGO_LOG)


def install_wheel(venv: Path) -> None:
    """Build the wheel in the dev profile and install it, with the package index off: it must need nothing else."""
    python = executable(venv, "python")
    wheels = WORK / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    command: list[str | Path] = [
        python,
        "-m",
        "maturin",
        "build",
        "--profile",
        "dev",
        "--interpreter",
        python,
    ]
    run([*command, "--out", wheels, "--auditwheel", "skip", "--compression-method", "stored"], venv=venv)
    built = list(wheels.glob("*.whl"))
    if len(built) != 1:
        raise TaskError(f"maturin left {len(built)} wheels in {wheels}, not one.")
    run([python, "-m", "pip", "install", "--quiet", "--no-index", "--force-reinstall", built[0]], venv=venv)
    if problems := check_wheel.problems(built[0]):
        raise TaskError("The wheel is not as it should be:\n  " + "\n  ".join(problems))
    # From outside the repository, so that nothing but the wheel can answer.
    check = "import phicandle, sysconfig; assert phicandle.__file__.startswith(sysconfig.get_path('platlib'))"
    run([python, "-c", check], venv=venv, cwd=WORK)


def run_pytest(arguments: Sequence[str], log: Path | None = None) -> None:
    """pytest against the installed wheel."""
    venv = tools()
    run([executable(venv, "python"), "-m", "pytest", *arguments], venv=venv, log=log)


def test_python() -> None:
    """All Python tests, among them the README's snippets."""
    PYTEST_LOG.unlink(missing_ok=True)
    run_pytest([], log=PYTEST_LOG)


def check_stubs() -> None:
    """mypy.stubtest: the stubs against the installed module. Each exception must say why."""
    for number, line in enumerate(ALLOWLIST.read_text(encoding="utf-8").splitlines(), 1):
        entry, _, reason = line.partition("#")
        if entry.strip() and not reason.strip():
            raise TaskError(f"{ALLOWLIST.name}:{number}: {entry.strip()} has no reason after a '#'.")
    venv = tools()
    run([executable(venv, "python"), "-m", "mypy.stubtest", "phicandle", "--allowlist", ALLOWLIST], cwd=WORK)


def check_performance() -> None:
    """The README's table of speeds and the pages of measurements say what their newest records say."""
    run([sys.executable, ROOT / "benches" / "compare.py", "--check"])
    run([sys.executable, ROOT / "benches" / "concurrency", "--check"])
    run([executable(tools(), "python"), ROOT / "benches" / "accuracy.py", "--check"])


TESTS: dict[str, Callable[[], None]] = {
    "Rust tests": test_rust,
    "Orders of threads": test_schedules,
    "Wheel, built and installed": lambda: install_wheel(tools()),
    "Python tests against the wheel": test_python,
    "Stubs against the wheel": check_stubs,
    "Table of speeds, pages of measurements": check_performance,
}


def run_stages(stages: dict[str, Callable[[], None]]) -> bool:
    """Run each stage, whatever the others say, and close with a table; false when one failed."""
    results = []
    for number, (title, stage) in enumerate(stages.items(), 1):
        say(f"\n==> {number}/{len(stages)} {title}")
        started = time.monotonic()
        try:
            stage()
            outcome = "ok"
        except (TaskError, subprocess.CalledProcessError, OSError) as error:
            say(f"FAILED: {error}")
            outcome = "FAILED"
        results.append((outcome, time.monotonic() - started, title))
    say("")
    for outcome, seconds, title in results:
        say(f"{outcome:<7}{seconds:7.1f} s  {title}")
    return all(outcome == "ok" for outcome, _, _ in results)


# Memory checks and other processors -----------------------------------------------------------------------------------

KERNELS = ROOT / "tests" / "kernels"
# What takes minutes there rather than hours: every kernel once, on each tier. And the comparison of single operations,
# because valgrind's fused multiply-add gets the sign of some zeros wrong.
VALGRIND_TESTS = (
    "--skip=every_way_to_compute",
    "--skip=bits_do_not_depend",
    "--skip=every_tier_gives_the_scalar_bits",
    "--skip=pool_tests",
)
# It counts threads of this process, and QEMU has one of its own.
ARM_TESTS = ("--skip=a_child_gets_workers_of_its_own",)


def kernel_tests(name: str, target: str, flags: str, arguments: Sequence[str] = ()) -> None:
    """The tests of the crate in tests/kernels, built with `flags` for `target` in a folder of their own."""
    os.environ["RUSTFLAGS"] = flags
    manifest = str(KERNELS / "Cargo.toml")
    command = ["cargo", "test", "--locked", "--manifest-path", manifest, "--target", target]
    try:
        run([*command, "--target-dir", str(TARGET / "sanitize" / name), "--", *arguments])
    finally:
        del os.environ["RUSTFLAGS"]


def rustc_says(*words: str) -> str:
    """What the compiler prints; nothing where it does not know the answer."""
    command = [os.environ.get("RUSTC", "rustc"), *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        raise TaskError(
            f"The program {command[0]!r} was not found. Install Rust with rustup first."
        ) from None


def host() -> str:
    """The target that the compiler runs on."""
    found = re.search(r"^host: (.+)$", rustc_says("-vV"), re.MULTILINE)
    return found[1] if found else ""


def sanitize_address() -> str | None:
    """AddressSanitizer; gives what is missing, if anything is."""
    target = host()
    libraries = Path(rustc_says("--print", "target-libdir"))
    if not list(libraries.glob("*rt.asan.*")):
        return f"the compiler has no AddressSanitizer for {target}"
    # The flag is for nightly compilers; this lets a stable one take it.
    os.environ["RUSTC_BOOTSTRAP"] = "1"
    os.environ["ASAN_OPTIONS"] = "detect_stack_use_after_return=1"
    try:
        kernel_tests("address", target, "-Zsanitizer=address")
    finally:
        del os.environ["RUSTC_BOOTSTRAP"], os.environ["ASAN_OPTIONS"]
    return None


def sanitize_valgrind() -> str | None:
    """valgrind's memcheck, which shows a program the instructions that it can follow: no AVX-512 up to now."""
    if not shutil.which("valgrind"):
        return "valgrind is not installed"
    target = host()
    runner = f"CARGO_TARGET_{target.upper().replace('-', '_')}_RUNNER"
    os.environ[runner] = "valgrind --error-exitcode=99 --leak-check=no --fair-sched=yes -q"
    try:
        kernel_tests("valgrind", target, "", VALGRIND_TESTS)
    finally:
        del os.environ[runner]
    return None


def sanitize_arm() -> str | None:
    """The tiers of Arm, on an emulated processor that has them all."""
    target = "aarch64-unknown-linux-gnu"
    if not list(Path(rustc_says("--print", "target-libdir", "--target", target)).glob("libstd-*")):
        return f"the compiler has no standard library for {target} (rustup target add, or another RUSTC)"
    for program in ("qemu-aarch64", "aarch64-linux-gnu-gcc"):
        if not shutil.which(program):
            return f"{program} is not installed"
    prefix = "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_"
    settings = {
        f"{prefix}LINKER": "aarch64-linux-gnu-gcc",
        # Authentication of pointers as Arm defines it takes most of the time.
        f"{prefix}RUNNER": "qemu-aarch64 -cpu max,pauth-impdef=on",
    }
    os.environ.update(settings)
    try:
        # Linked statically: the emulated program needs no libraries of that processor.
        kernel_tests("arm", target, "-Ctarget-feature=+crt-static,+fp16", ARM_TESTS)
    finally:
        for name in settings:
            del os.environ[name]
    return None


SANITIZERS: dict[str, Callable[[], str | None]] = {
    "address": sanitize_address,
    "valgrind": sanitize_valgrind,
    "arm": sanitize_arm,
}


def target_sanitize(*names: str) -> int:
    """The kernels' tests under each tool that this machine has, or under those named."""
    if unknown := sorted(set(names) - set(SANITIZERS)):
        raise TaskError(f"No such tool: {', '.join(unknown)}. There are: {', '.join(SANITIZERS)}.")
    skipped = []
    for name in names or SANITIZERS:
        say(f"\n==> {name}")
        if missing := SANITIZERS[name]():
            skipped.append(f"SKIPPED: {name}: {missing}.")
            say(skipped[-1])
    say("")
    for line in skipped:
        say(line)
    return 0


# Targets -------------------------------------------------------------------------------------------------------------


def target_test() -> int:
    """Everything, in a fresh environment; the last line has the counts."""
    for log in (CARGO_LOG, PYTEST_LOG):
        log.unlink(missing_ok=True)
    make_venv(".venv-test", "dev", fresh=True)
    passed = run_stages(LINT | TESTS)
    if CARGO_LOG.exists():
        for line in count.skip_lines(CARGO_LOG.read_text(encoding="utf-8", errors="replace")):
            say(line)
    sys.stderr.flush()
    status = count.main([str(CARGO_LOG), str(PYTEST_LOG)])
    return status or int(not passed)


def target_demo() -> int:
    """Build, install, and run the built-in model on the tutorial's prompt."""
    say("Building phicandle. The first time takes some minutes, as Candle is compiled; after that, seconds.")
    venv = make_venv(".venv-demo", "build")
    install_wheel(venv)
    say("\nThe small model inside the wheel now answers the cookbook's prompt: a haiku about ice hockey.\n")
    run([executable(venv, "python"), "-m", "phicandle", "run", "--model", "demo", TUTORIAL_PROMPT], venv=venv)
    say("\nTo go on: .venv-demo holds a Python that can `import phicandle`; README.md says what to try.")
    return 0


def target_format() -> int:
    """Format Rust and Python in place."""
    run(["cargo", "fmt"])
    run(["cargo", "fmt", "--manifest-path", SCHEDULES])
    ruff = executable(tools(), "ruff")
    run([ruff, "check", "--fix-only", "--quiet", "."])
    run([ruff, "format", "."])
    return 0


def target_wheel() -> int:
    """The release wheel and the sdist, into dist/."""
    python = executable(tools(), "python")
    for command in (["build", "--release"], ["sdist"]):
        run([python, "-m", "maturin", *command, "--out", "dist"], venv=tools())
    return check_wheel.main([str(path) for path in sorted((ROOT / "dist").iterdir())])


def target_fuzz(seconds: str = "60") -> int:
    """Fuzz every target of fuzz/ for some seconds, from its seeds."""
    if not shutil.which("cargo-fuzz"):
        say("cargo-fuzz is not installed: building it into the target folder.")
        run(["cargo", "install", "--quiet", "--locked", "--root", WORK, "cargo-fuzz"])
        os.environ["PATH"] = f"{WORK / 'bin'}{os.pathsep}{os.environ['PATH']}"
    # The sanitizer's flags are for nightly compilers; this lets a stable one take them, so that no other has to be had.
    os.environ["RUSTC_BOOTSTRAP"] = "1"
    listing = subprocess.run(
        ["cargo", "fuzz", "list"], cwd=ROOT, capture_output=True, text=True, check=False, env=environment()
    )
    if listing.returncode:
        raise TaskError(f"cargo fuzz did not list its targets: {listing.stderr.strip()}")
    limits = [f"-max_total_time={int(seconds)}", "-timeout=2", "-rss_limit_mb=512", "-malloc_limit_mb=64"]
    for name in listing.stdout.split():
        corpus = ROOT / "fuzz" / "corpus" / name
        corpus.mkdir(parents=True, exist_ok=True)
        seeds = [path for path in (ROOT / "fuzz" / "seeds" / name,) if path.is_dir()]
        words = ["-dict=fuzz/gguf.dict", "-max_len=16384", *limits]
        run(["cargo", "fuzz", "run", name, corpus, *seeds, "--", *words])
    return 0


def criterion(name: str) -> int:
    """Run a Criterion benchmark, or list them."""
    targets = cargo_metadata()["targets"]
    names = [t["name"] for t in targets if t["kind"] == ["bench"]] if isinstance(targets, list) else []
    if name in names:
        run(["cargo", "bench", "--locked", "--bench", name])
        return 0
    for bench in names:
        print(f"make bench NAME={bench}")
    if name == "list":
        return 0
    raise TaskError(f"There is no benchmark {name!r}.")


def target_bench(*arguments: str) -> int:
    """Compare with other engines: phicandle's release wheel and each of them in an environment of the user's cache."""
    if arguments[:1] == ("--name",):
        return criterion(arguments[1])
    return measure_release("compare.py", arguments)


def target_accuracy(*arguments: str) -> int:
    """Compare logits with float64 and with other engines, and write docs/accuracy.md."""
    install_wheel(tools())
    run([executable(tools(), "python"), ROOT / "benches" / "accuracy.py", *arguments], venv=tools())
    return 0


def target_concurrency(*arguments: str) -> int:
    """Measure how the release wheel serves many at once, and write docs/concurrency.md."""
    return measure_release("concurrency", arguments)


def measure_release(name: str, arguments: Sequence[str]) -> int:
    """Run a benchmark of `benches/` with the release wheel, which is built unless the arguments name another Python."""
    words = list(arguments)
    venv = make_venv(".venv-bench", "bench")
    if "--phicandle" not in words:
        words += ["--phicandle", str(release_environment(venv))]
    run([executable(venv, "python"), ROOT / "benches" / name, "--install", *words], venv=venv)
    return 0


def release_environment(venv: Path) -> Path:
    """A Python with phicandle as users get it: the release wheel, built here."""
    python = executable(venv, "python")
    wheels = WORK / "release-wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    say("Building phicandle's release wheel. The first time takes some minutes.")
    build: list[str | Path] = [python, "-m", "maturin", "build", "--release", "--interpreter", python]
    run([*build, "--out", wheels, "--auditwheel", "skip"], venv=venv)
    (wheel,) = wheels.glob("*.whl")
    run([python, "-m", "pip", "install", "--quiet", "--no-index", "--force-reinstall", wheel], venv=venv)
    return python


def target_clean() -> int:
    """Remove what the targets have made; the user's model cache is not theirs."""
    run(["cargo", "clean"])
    for name in (
        ".venv-bench",
        ".venv-demo",
        ".venv-test",
        "dist",
        ".pytest_cache",
        ".mypy_cache",
        ".ruff_cache",
        ".hypothesis",
    ):
        shutil.rmtree(ROOT / name, ignore_errors=True)
    return 0


def with_wheel(*steps: Callable[[], None]) -> int:
    """Build and install the wheel, then do the steps."""
    install_wheel(tools())
    for step in steps:
        step()
    return 0


def target_test_rust() -> int:
    """Rust tests alone."""
    test_rust()
    return 0


def target_test_schedules() -> int:
    """The places where threads meet alone."""
    test_schedules()
    return 0


def target_test_python(*arguments: str) -> int:
    """The wheel and pytest, with pytest's own arguments if any."""
    return with_wheel(lambda: run_pytest(arguments))


TARGETS: dict[str, Callable[..., int]] = {
    "demo": target_demo,
    "test": target_test,
    "lint": lambda: 0 if run_stages(LINT) else 1,
    "format": target_format,
    "test-rust": target_test_rust,
    "test-schedules": target_test_schedules,
    "test-python": target_test_python,
    "wheel": target_wheel,
    "stubs": lambda: with_wheel(check_stubs),
    "readme": lambda: with_wheel(check_performance, lambda: run_pytest(["tests/test_readme.py"])),
    "fuzz": target_fuzz,
    "sanitize": target_sanitize,
    "bench": target_bench,
    "accuracy": target_accuracy,
    "concurrency": target_concurrency,
    "clean": target_clean,
}


def main(arguments: list[str]) -> int:
    """Run one target."""
    if not arguments or arguments[0] not in TARGETS:
        say(f"usage: python3 scripts/tasks.py {{{','.join(TARGETS)}}}")
        return 2
    try:
        return TARGETS[arguments[0]](*arguments[1:])
    except (TaskError, subprocess.CalledProcessError) as error:
        say(f"\n{error}")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    if sys.version_info < (3, 10):  # noqa: UP036 - a person may start this with any Python
        sys.exit(f"phicandle's tasks need Python 3.10 or later; this is {sys.version.split()[0]}.")
    sys.exit(main(sys.argv[1:]))
