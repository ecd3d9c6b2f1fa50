"""The engines at work: starts their runners, asks them in turns, and notes what they say."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import models, points
from .machine import Clock
from .peers import RUNNERS, environment, interpreter
from .points import Measure
from .record import config_name

#: The longest that one request may take, in seconds.
PATIENCE = 900.0
#: A sample is taken again when the host took more than this share of the time.
STEAL = 0.01
#: Configurations this much slower than an engine's best in the first round are not measured again.
NEAR = 1.1

_SCRIPTS = {
    points.PHICANDLE: "phicandle_runner.py",
    points.CANDLE: "phicandle_runner.py",
    points.LLAMA: "llama_runner.py",
    points.MISTRAL: "mistral_runner.py",
    points.OPENVINO: "openvino_runner.py",
}
_FOLDERS = {points.MISTRAL: "mistralrs", points.OPENVINO: "openvino-genai"}
#: So slow on the large model that once is enough.
_ONCE = (points.CANDLE, points.MISTRAL)


class RunnerError(Exception):
    """A runner that could not do what it was asked, in a sentence."""


class Runner:
    """An engine in a process of its own."""

    def __init__(self, python: Path, script: str, variables: Mapping[str, str], log: Path) -> None:
        self.log = log.open("ab")
        self.child = subprocess.Popen(
            [str(python), str(RUNNERS / script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=environment(variables),
        )

    def ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Has it do something."""
        if self.child.stdin is None or self.child.stdout is None:
            raise RunnerError("it has no pipes")
        alarm = threading.Timer(PATIENCE, self.child.kill)
        alarm.start()
        try:
            self.child.stdin.write(json.dumps({"op": operation, **arguments}) + "\n")
            self.child.stdin.flush()
            line = self.child.stdout.readline()
        except OSError as error:
            raise RunnerError(f"it broke off: {error}") from None
        finally:
            alarm.cancel()
        if not line:
            raise RunnerError(f"it ended with status {self.child.wait()}, see {self.log.name}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RunnerError(" ".join(str(answer["error"]).split())[:300])
        return answer

    def stop(self) -> None:
        """Ends it."""
        if self.child.stdin is not None:
            with contextlib.suppress(OSError):
                self.child.stdin.close()
        try:
            self.child.wait(20)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        if self.child.stdout is not None:
            self.child.stdout.close()
        self.log.close()


@dataclass
class Comparison:
    """One comparison."""

    cache: Path
    phicandle: Path
    threads: int
    rounds: int
    engines: tuple[str, ...]
    full: bool = False
    #: Why a peer's folder is not there.
    absent: Mapping[str, str] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    missing: list[dict[str, str]] = field(default_factory=list)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    runners: dict[tuple[str, str], Runner] = field(default_factory=dict)

    # Runners ---------------------------------------------------------------------------------------------------------

    def _folder(self, engine: str, tier: str) -> str:
        if engine == points.LLAMA:
            return f"llama-cpp-{tier}" if tier else "llama-cpp"
        return _FOLDERS.get(engine, "phicandle")

    def start(self, engine: str, tier: str = "") -> Runner:
        """A runner for an engine."""
        folder = self._folder(engine, tier)
        if folder in self.absent:
            raise RunnerError(self.absent[folder])
        python = self.phicandle if folder == "phicandle" else interpreter(self.cache / folder)
        # Candle and mistral.rs take their threads from the environment.
        variables = {"RAYON_NUM_THREADS": str(self.threads)}
        if tier and folder == "phicandle":
            variables["PHICANDLE_ISA"] = tier
        self.cache.mkdir(parents=True, exist_ok=True)
        try:
            return Runner(python, _SCRIPTS[engine], variables, self.cache / "runners.log")
        except OSError as error:
            raise RunnerError(f"its runner did not start: {error}") from None

    def _runner(self, engine: str, tier: str) -> Runner:
        """The runner that stays while a model is measured."""
        key = (engine, tier)
        if key not in self.runners:
            self.runners[key] = self.start(engine, tier)
        return self.runners[key]

    def stop(self) -> None:
        """Ends all runners, and gives their memory back."""
        for runner in self.runners.values():
            runner.stop()
        self.runners.clear()

    # Measures --------------------------------------------------------------------------------------------------------

    def configurations(self, measure: Measure, engine: str) -> list[dict[str, Any]]:
        """All settings of an engine in which a measure is taken."""
        if engine == points.CANDLE:
            return [{"backend": "candle"}]
        if engine != points.LLAMA:
            return [{}]
        if measure.operation == "open":
            return [{"repack": measure.options["memory"] == "repack"}]
        return [{"repack": repack, "flash": flash} for repack in (True, False) for flash in (False, True)]

    def _options(self, measure: Measure, engine: str) -> dict[str, Any]:
        """The measure's settings that are the engine's own."""
        if engine != points.PHICANDLE:
            return {}
        options: dict[str, Any] = {
            name: value for name, value in measure.options.items() if name in {"kv", "memory"}
        }
        return options | ({"limits": True} if measure.limits else {})

    def take(self, measure: Measure, engine: str, config: dict[str, Any], model: Path) -> dict[str, Any]:
        """One sample."""
        tier = measure.options.get("tier", "")
        threads = 1 if measure.one_thread else self.threads
        settings = {"model": str(model), "threads": threads, **self._options(measure, engine), **config}
        fresh = measure.operation in {"open", "stream"}
        runner = self.start(engine, tier) if fresh else self._runner(engine, tier)
        try:
            if measure.operation == "open":
                # Some systems drop the pages of a file within minutes, and the target is for those that are there. A
                # virtual machine may have lent idle memory to its host, and waits for each page, whoever comes first.
                models.warm(model)
                models.touch_memory(model.stat().st_size * 5 // 4)
                before = runner.ask("memory")
                clock = Clock()
                answer = runner.ask("open", **settings)
                steal = clock.steal()
                after = runner.ask("memory")
                for name in ("peak", "private"):
                    if name in after:
                        answer[name] = after[name] - before["resident" if name == "peak" else name]
            else:
                self.versions.setdefault(engine, self._version(runner.ask("load", **settings)))
                clock = Clock()
                answer = runner.ask(measure.operation, **measure.arguments)
                steal = clock.steal()
        finally:
            # What others hold in memory must not be in the way; llama.cpp and phicandle hold no more than they need.
            if fresh:
                runner.stop()
            elif engine not in {points.LLAMA, points.PHICANDLE}:
                self.runners.pop((engine, tier)).stop()
        # The time of each pass, for whoever debugs a runner.
        answer.pop("steps", None)
        if "step_s" in answer:
            answer["steps"] = answer["seconds"] / answer["step_s"]
        elif "seconds" in answer:
            answer["rate"] = measure.tokens() / answer["seconds"]
        for name in ("version", "system"):
            answer.pop(name, None)
        return answer | {"steal": steal}

    @staticmethod
    def _version(answer: dict[str, Any]) -> dict[str, str]:
        return {name: str(answer.get(name, "")) for name in ("version", "system")}

    def measure(self, measure: Measure, engine: str, number: int, model: Path) -> None:
        """The samples of one round; what fails is noted once, and not tried again."""
        known = {(missing["measure"], missing["engine"]) for missing in self.missing}
        if (measure.name, engine) in known:
            return
        reason = measure.without.get(engine)
        if reason and not (self.full and reason == points.SLOW_PROMPT):
            self.missing.append({"measure": measure.name, "engine": engine, "reason": reason})
            return
        if number > 0 and engine in _ONCE and measure.model == points.PHI:
            return
        for config in self._worthwhile(measure, engine, number):
            try:
                sample = self.take(measure, engine, config, model)
                if sample["steal"] > STEAL:
                    sample = min(sample, self.take(measure, engine, config, model), key=lambda s: s["steal"])
            except RunnerError as error:
                self.missing.append({"measure": measure.name, "engine": engine, "reason": str(error)})
                say(f"{measure.name}: {engine}: NOT MEASURED: {error}")
                if (runner := self.runners.pop((engine, measure.options.get("tier", "")), None)) is not None:
                    runner.stop()
                return
            shown = {name: value for name, value in config.items() if name != "backend"}
            sample |= {"measure": measure.name, "engine": engine, "config": shown, "round": number}
            self.samples.append(sample)
            say(
                f"round {number + 1}/{self.rounds}  {measure.name}  {engine}  {config_name(shown)}  {brief(sample)}"
            )

    def _worthwhile(self, measure: Measure, engine: str, number: int) -> list[dict[str, Any]]:
        """All configurations in the first round, those near the best afterwards."""
        all_of_them = self.configurations(measure, engine)
        first = {
            config_name(sample["config"]): sample.get("seconds", sample.get("load_s", 0.0))
            for sample in self.samples
            if (sample["measure"], sample["engine"], sample["round"]) == (measure.name, engine, 0)
        }
        if number == 0 or len(all_of_them) == 1 or not first:
            return all_of_them
        bound = NEAR * min(first.values())
        return [config for config in all_of_them if first.get(config_name(config), bound + 1) <= bound]

    def run(self, measures: list[Measure], model: Path) -> None:
        """All rounds over the measures of one model: the engines take turns at each."""
        try:
            for number in range(self.rounds):
                for measure in measures:
                    for engine in self.engines:
                        if engine in measure.engines:
                            self.measure(measure, engine, number, model)
        finally:
            self.stop()


def brief(sample: dict[str, Any]) -> str:
    """A sample in a few words."""
    shown = {
        "rate": "{:.1f} tok/s",
        "steps": "{:.2f} steps",
        "load_s": "{:.2f} s",
        "python_s": "{:.6f} s",
    }
    words = [text.format(sample[name]) for name, text in shown.items() if name in sample]
    if sample["steal"] > STEAL:
        words.append(f"({sample['steal']:.1%} of the time taken by the host)")
    return " ".join(words)


def say(text: str) -> None:
    """A line for the person who waits."""
    print(text, file=sys.stderr, flush=True)
