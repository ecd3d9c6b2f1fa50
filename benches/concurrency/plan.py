"""What is to be measured, and the run that does it: each in a process of its own, with a word on how far it is."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from comparison import machine, models
from comparison.peers import environment

from .measurement import NotMeasuredError, find

#: The longest that one measurement may take, in seconds.
PATIENCE = 1200.0
CHILD = Path(__file__).resolve().parent / "child.py"


@dataclass(frozen=True)
class Plan:
    """A measurement with one model."""

    name: str
    model: str

    @property
    def seconds(self) -> float | None:
        """About how long it takes; `None` when it is not made with this model."""
        found: float | None = find(self.name).SECONDS.get(self.model)
        return found


def plans(names: Sequence[str], wanted: Sequence[str]) -> tuple[list[Plan], dict[str, str]]:
    """What is to be measured, model by model; and which measurements are not there, with the reason."""
    found, missing = [], {}
    for model in wanted:
        for name in names:
            try:
                if Plan(name, model).seconds is not None:
                    found.append(Plan(name, model))
            except NotMeasuredError as error:
                missing[name] = str(error)
    return found, missing


@dataclass
class Run:
    """How to measure."""

    phicandle: Path
    llama: Path | None
    threads: int
    quick: bool

    def take(self, plan: Plan, path: Path) -> dict[str, Any]:
        """One result, as the record has it."""
        request = {
            "measurement": plan.name,
            "model": plan.model,
            "path": str(path),
            "threads": self.threads,
            "quick": self.quick,
            "llama": str(self.llama) if self.llama else None,
        }
        result: dict[str, Any] = {
            "measurement": plan.name,
            "model": plan.model,
            "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "busy": machine.busy(1.0),
        }
        clock, started = machine.Clock(), time.monotonic()
        try:
            done = subprocess.run(
                [str(self.phicandle), str(CHILD)],
                input=json.dumps(request),
                stdout=subprocess.PIPE,
                text=True,
                env=environment(),
                timeout=PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            answer = {"missing": f"it took longer than {PATIENCE:.0f} s"}
        else:
            lines = done.stdout.splitlines()
            answer = (
                json.loads(lines[-1]) if lines else {"missing": f"it ended with status {done.returncode}"}
            )
        return result | {"seconds": round(time.monotonic() - started, 1), "steal": clock.steal()} | answer

    def results(self, todo: list[Plan]) -> list[dict[str, Any]]:
        """All results, in order."""
        files = models.find({plan.model for plan in todo})
        for path in files.values():
            models.warm(path)
        left = sum(plan.seconds or 0.0 for plan in todo)
        results = []
        for number, plan in enumerate(todo, 1):
            about = "" if self.quick else f", about {max(1, round(left / 60))} min left"
            say(f"[{number}/{len(todo)}{about}] {find(plan.name).TITLE}: {plan.model}")
            result = self.take(plan, files[plan.model])
            if "missing" in result:
                say(f"      NOT MEASURED: {result['missing']}")
            for row in find(plan.name).rows(result["found"]) if "found" in result else []:
                verdict = {True: "met", False: "MISSED", None: ""}[row.met]
                say(f"    {row.what}: {row.text} {f'({row.target}: {verdict})' if verdict else ''}".rstrip())
            results.append(result)
            left -= plan.seconds or 0.0
        return results


def say(text: str) -> None:
    """A line for the person who waits."""
    print(text, file=sys.stderr, flush=True)
