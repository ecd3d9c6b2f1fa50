"""The table of errors: every class, with an input that raises it."""

from __future__ import annotations

import copy
import http.server
import inspect
import os
import pickle
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import PROMPT
from gguf_files import tiny as tiny_model
from test_stream import ENDLESS

import phicandle
from phicandle import Generator, PhicandleError, _phicandle, errors
from phicandle.cpu import require_half_precision

ROWS: dict[str, Callable[[Any], object]] = {}


class World:
    """What a row may use."""

    def __init__(
        self, generator: Generator, path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.generator, self.path, self.folder, self.monkeypatch = generator, path, folder, monkeypatch

    def hub(self, status: int) -> None:
        """Makes the hub a server on this machine that answers every request with `status`."""

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                if status == 403:
                    self.send_header("X-Error-Code", "GatedRepo")
                self.end_headers()

            do_HEAD = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        self.monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")


def row(function: Callable[[World], object]) -> Callable[[World], object]:
    """Adds a row: its name is the class."""
    ROWS[function.__name__] = function
    return function


# The names of the rows are those of the classes.


@row
def PhicandleError_(world: World) -> object:
    return world.generator.generate("")


@row
def ModelNotFoundError(world: World) -> object:
    return Generator(world.folder / "nothing.gguf")


@row
def ModelReadError(world: World) -> object:
    return Generator(Path(os.devnull))


@row
def DownloadError(world: World) -> object:
    world.hub(418)
    return Generator("owner/name")


@row
def OfflineError(world: World) -> object:
    return Generator("owner/name")


@row
def GatedModelError(world: World) -> object:
    world.hub(403)
    return Generator("owner/name")


@row
def CorruptModelError(world: World) -> object:
    path = world.folder / "cut.gguf"
    path.write_bytes(world.path.read_bytes()[:5000])
    return Generator(path)


@row
def UnsupportedModelError(world: World) -> object:
    path = world.folder / "other.gguf"
    tiny_model().set("general.architecture", "str", "mamba").write(path)
    return Generator(path)


@row
def UnsupportedCpuError(world: World) -> object:
    cpuinfo = world.folder / "cpuinfo"
    cpuinfo.write_text("processor : 0\nFeatures : fp asimd crc32\n")
    return require_half_precision(str(cpuinfo), "aarch64")


@row
def DeviceError(world: World) -> object:
    return Generator(world.path, device="metal" if sys.platform != "darwin" else "cuda")


@row
def OutOfMemoryError(world: World) -> object:
    return Generator(world.path, memory=1000)


@row
def InvalidParameterError(world: World) -> object:
    return world.generator.generate(PROMPT, temperature=-1)


@row
def TokenizerError(world: World) -> object:
    path = world.folder / "tokenizer.json"
    path.write_text('{"model": {"type": "WordLevel"}}')
    return phicandle.Tokenizer.from_file(path)


@row
def TemplateError(world: World) -> object:
    return Generator(world.path, chat_template="{% for")


@row
def ContextOverflowError(world: World) -> object:
    return world.generator.generate([300] * 9000)


@row
def NumericalError(world: World) -> object:
    path = world.folder / "huge.gguf"
    model = tiny_model()
    tensor = model.tensor("output.weight")
    assert tensor.data is not None
    # Finite, so the file is sound; but the sums are not.
    tensor.data = struct.pack("<2f", 3e38, 3e38) * (len(tensor.data) // 8)
    model.write(path)
    return Generator(path).generate(PROMPT)


@row
def QueueFullError(world: World) -> object:
    with Generator(world.path, max_batch=1, max_queue=1) as generator:
        return [generator.stream(PROMPT, **ENDLESS) for _ in range(4)]


@row
def ChatBusyError(world: World) -> object:
    chat = world.generator.chat()
    with chat.stream(PROMPT, **ENDLESS):
        return chat.send(PROMPT)


@row
def ChatFileError(world: World) -> object:
    return world.generator.load_chat(world.folder / "nothing.json")


@row
def ClosedError(world: World) -> object:
    generator = Generator(world.path)
    generator.close()
    return generator.generate(PROMPT)


@row
def InternalError(world: World) -> object:
    return _phicandle.panic_for_test()


@row
def GenerationCancelled(world: World) -> object:
    generator = Generator(world.path)
    threading.Timer(0.1, generator.close).start()
    return generator.generate(PROMPT, **ENDLESS)


@row
def GenerationTimeout(world: World) -> object:
    with world.generator.stream(PROMPT, **ENDLESS) as stream:
        return stream.result(timeout=0.05)


FORK = """
import os, pickle, sys
from phicandle import Generator
generator = Generator(sys.argv[1])
generator.generate("ice", max_tokens=1)
reading, writing = os.pipe()
if os.fork() == 0:
    try:
        generator.generate("ice")
    except Exception as error:
        os.write(writing, pickle.dumps(error))
    os._exit(0)
os.close(writing)
sys.stdout.buffer.write(os.fdopen(reading, "rb").read())
"""


@row
def ForkError(world: World) -> object:
    # In a process of its own: this one has threads, which Python warns of.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK, str(world.path)], capture_output=True, timeout=60
    )
    assert done.stdout, done.stderr
    raise pickle.loads(done.stdout)


@pytest.fixture
def world(
    tiny: Generator, tiny_file: Path, tmp_path: Path, offline: Path, monkeypatch: pytest.MonkeyPatch
) -> World:
    folder = tmp_path / "files"
    folder.mkdir()
    return World(tiny, tiny_file, folder, monkeypatch)


CLASSES = sorted(
    name
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, PhicandleError)
)


def test_every_class_has_a_row() -> None:
    assert sorted(name.rstrip("_") for name in ROWS) == CLASSES == sorted(errors.__all__)
    assert set(CLASSES) <= set(phicandle.__all__)


def test_every_class_is_a_built_in_too() -> None:
    for name in set(CLASSES) - {"PhicandleError"}:
        builtin = next(base for base in getattr(errors, name).__mro__ if base.__module__ == "builtins")
        assert builtin not in (Exception, BaseException), name


@pytest.mark.parametrize("name", ROWS)
def test_the_row_raises_its_class(world: World, name: str) -> None:
    if name == "ForkError" and not hasattr(os, "fork"):
        pytest.skip("needs os.fork")
    wanted = getattr(errors, name.rstrip("_"))
    with pytest.raises(wanted) as caught:
        ROWS[name](world)
    error = caught.value
    if wanted is not PhicandleError:
        assert type(error) is wanted
    assert error.hint
    assert error.hint[0].isupper() or error.hint.startswith(("`", '"'))
    assert str(error).endswith(error.hint)
    assert str(error) != error.hint
    for attribute in wanted.__annotations__:
        assert hasattr(error, attribute)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)
        assert twin.args == error.args
    # The shared generator still works.
    assert (
        world.generator.generate(PROMPT, seed=1, max_tokens=3, ignore_eos=True).usage.completion_tokens == 3
    )


def test_facts_are_on_the_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def caught(name: str) -> Any:
        with pytest.raises(PhicandleError) as info:
            ROWS[name](world)
        return info.value

    assert caught("ContextOverflowError").prompt_tokens == 9000
    assert caught("ContextOverflowError").limit == 8192
    assert caught("UnsupportedModelError").arch == "mamba"
    assert caught("UnsupportedCpuError").missing == ("fp16",)
    assert caught("QueueFullError").retry_after > 0
    assert caught("CorruptModelError").place
    assert caught("GenerationCancelled").partial.finish_reason == "cancelled"
    assert "127.0.0.1" in caught("GatedModelError").url
    assert caught("GatedModelError").status == 403


def test_near_names_are_offered(world: World) -> None:
    (world.folder / "phi-3-mini-q4.gguf").write_bytes(world.path.read_bytes())
    with pytest.raises(errors.ModelNotFoundError) as caught:
        Generator(world.folder / "phi-3-mini-q5.gguf")
    assert isinstance(caught.value, FileNotFoundError)
    assert any(name.endswith("phi-3-mini-q4.gguf") for name in caught.value.candidates)


def test_without_hub_and_cache_the_demo_is_named(offline: Path) -> None:
    with pytest.raises(errors.OfflineError, match="demo"):
        Generator()


@pytest.mark.parametrize(
    ("tier", "error"),
    [
        ("i8mm" if os.name == "posix" else "neon", errors.UnsupportedCpuError),
        ("sse9", errors.InvalidParameterError),
    ],
)
def test_a_forced_tier_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, tier: str, error: type[PhicandleError]
) -> None:
    if phicandle.cpu_info().arch != "x86_64" and tier != "sse9":
        pytest.skip("names a tier of another architecture")
    monkeypatch.setenv("PHICANDLE_ISA", tier)
    with pytest.raises(error):
        phicandle.cpu_info()


def test_errors_can_be_made_with_a_message_alone() -> None:
    for name in CLASSES:
        error = getattr(errors, name)("Something happened.")
        assert str(error) == "Something happened."
        assert error.hint is None
        assert pickle.loads(pickle.dumps(error)).args == error.args


def test_arm_cpus_with_half_precision_pass(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nFeatures : fp asimd fphp asimdhp\n")
    require_half_precision(str(cpuinfo), "aarch64")
    require_half_precision(str(tmp_path / "absent"), "aarch64")
    require_half_precision(str(tmp_path / "absent"), "x86_64")
