"""The page `docs/accuracy.md`, from the record."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import Any

#: Errors of the same kind differ by chance; only a clear difference is a worse one.
CLEARLY = 1.5
#: From here on an engine computes another model.
WRONG = 1e-2
#: The bounds that the comparisons with llama.cpp must keep.
GAP, PERPLEXITY = 0.05, 0.003


def write(record: dict[str, Any], engines: Sequence[str]) -> str:
    """Returns the page."""
    lines = [
        "# Accuracy",
        "",
        "Written by `make accuracy` from `benches/record/accuracy.json`; do not edit by hand.",
        "",
        "## Logits against float64",
        "",
        *_paragraph(
            "Small models of random weights in the proportions of each model of the family, and one real "
            f"model. The same tokens go through each engine ({record['llama.cpp']}; `candle` is candle- "
            "transformers' model behind phicandle's own backend of that name) and through a float64 model "
            "written for the tests. NMSE is the sum of the squared differences of all logits over that of the "
            "squared logits; top-1 says how often the likeliest token is the reference's. A dash is an engine "
            "that does not run the file; **bold** is an NMSE that belongs to another model than the file's."
        ),
        "",
        "| model | weights | positions | " + " | ".join(f"{name}: NMSE, top-1" for name in engines) + " |",
        "|---|---|---:|" + "---:|" * len(engines),
    ]
    for key, row in record["table"].items():
        model, quant = key.split("|")
        cells = " | ".join(_cell(row[name]) for name in engines)
        lines.append(f"| {model} | {quant} | {row['positions']} | {cells} |")
    lines += ["", *_verdict(record["table"], engines), "", *_refusals(record["table"], engines)]
    lines += ["", *_greedy(record["greedy"]), "", *_perplexity(record["perplexity"])]
    return "\n".join(lines) + "\n"


def _cell(found: dict[str, Any]) -> str:
    if "refused" in found:
        return "-"
    number = f"{found['nmse']:.1e}"
    return f"{f'**{number}**' if found['nmse'] > WRONG else number}, {found['top1']:.1%}"


def _verdict(table: dict[str, Any], engines: Sequence[str]) -> list[str]:
    ours, others = engines[0], engines[1:]
    worst, wrong, best = [], [], 0
    for key, row in table.items():
        errors = {name: row[name]["nmse"] for name in others if "nmse" in row[name]}
        if not errors or "nmse" not in row[ours]:
            continue
        mine = row[ours]["nmse"]
        if mine > max(errors.values()):
            worst.append((key.replace("|", ", "), mine, max(errors.values())))
        if any(error > WRONG for error in errors.values()):
            wrong.append(key)
            best += mine < min(errors.values())
    lines = [
        f"Rows in which another engine is wrong: {len(wrong)}; phicandle is the most exact in {best} of them."
    ]
    if worst:
        lines += ["", "Rows in which phicandle's NMSE is the largest:", ""]
        lines += [
            f"- {key}: {mine:.2e}, the next {other:.2e}" + (" (clearly)" if mine > CLEARLY * other else "")
            for key, mine, other in worst
        ]
    else:
        lines.append("There is no row in which phicandle's NMSE is the largest.")
    return lines


def _refusals(table: dict[str, Any], engines: Sequence[str]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for key, row in table.items():
        for name in engines:
            if reason := row[name].get("refused"):
                said = re.search(r'message: "([^"]*)', reason)
                reason = said[1] if said else reason
                reasons.setdefault(f"{name}: {reason}", []).append(key.split("|")[0])
    if not reasons:
        return []
    lines = ["What the engines say of the files that they do not run:", ""]
    return lines + [
        f"- {reason} ({', '.join(dict.fromkeys(models))})" for reason, models in sorted(reasons.items())
    ]


def _greedy(results: list[dict[str, Any]]) -> list[str]:
    equal = sum(result["equal"] for result in results)
    lines = [
        "## Greedy answers beside llama.cpp's",
        "",
        f"SmolLM2-135M-Instruct, 64 tokens for each of {len(results)} questions: {equal} answers are the same tokens.",
        "Where they part, the two best logits are this far apart in each engine:",
        "",
        "| question | tokens in common | phicandle's gap | llama.cpp's gap |",
        "|---|---:|---:|---:|",
    ]
    for result in results:
        if result["equal"]:
            cells = "all | - | -"
        else:
            cells = f"{result['place']} | {result['phicandle_gap']:.3f} | {result['llama_gap']:.3f}"
        lines.append(f"| {result['question']} | {cells} |")
    near = all(r["equal"] or min(r["phicandle_gap"], r["llama_gap"]) <= GAP for r in results)
    lines += [
        "",
        f"At least 9 of 10 equal: {_yes(equal >= 9)}. Others part at a gap of 0.05 or less: {_yes(near)}.",
    ]
    return lines


def _perplexity(found: dict[str, Any]) -> list[str]:
    apart = found["phicandle"] / found["llama.cpp"] - 1
    return [
        "## Perplexity beside llama.cpp's",
        "",
        *_paragraph(
            f"SmolLM2-135M-Instruct on {found['tokens']} tokens of {' and '.join(found['text'])} (SHA-256 begins "
            f"`{found['sha256'][:16]}`), in windows of {found['window']}, {found['stride']} apart, the same tokens and "
            f"windows for both: phicandle {found['phicandle']:.4f}, llama.cpp {found['llama.cpp']:.4f}, {apart:+.3%}. "
            f"Within 0.3 %: {_yes(abs(apart) <= PERPLEXITY)}."
        ),
    ]


def _paragraph(text: str) -> list[str]:
    return textwrap.wrap(text, 118, break_long_words=False, break_on_hyphens=False)


def _yes(value: bool) -> str:
    return "yes" if value else "**no**"
