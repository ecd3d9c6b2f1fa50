"""The page `docs/accuracy.md`, from the record."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import Any

#: Above this NMSE, and this many times that of the most exact engine, an engine computes another model than the file's.
WRONG, TIMES = 1e-2, 3.0
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
            f"model. The same tokens go through each engine ({record['llama.cpp']}; `candle` is "
            "candle-transformers' model behind phicandle's own backend of that name) and through a float64 model "
            "written for the tests. NMSE is the sum of the squared differences of all logits over that of the "
            "squared logits; top-1 says how often the likeliest token is the reference's. A dash is an engine "
            "that does not run the file; **bold** is an error above 0.01 and three times that of the most "
            "exact engine: another model than the file's. Where experts are random, small errors send tokens "
            "to other experts, so the errors of such a file are larger in every engine."
        ),
        "",
        "| model | weights | positions | " + " | ".join(f"{name}: NMSE, top-1" for name in engines) + " |",
        "|---|---|---:|" + "---:|" * len(engines),
    ]
    for key, row in record["table"].items():
        model, quant = key.split("|")
        cells = " | ".join(_cell(row, name) for name in engines)
        lines.append(f"| {model} | {quant} | {row['positions']} | {cells} |")
    lines += ["", *_verdict(record["table"], engines), "", *_refusals(record["table"], engines)]
    lines += ["", *_greedy(record["decided"], record["greedy"]), "", *_perplexity(record["perplexity"])]
    return "\n".join(lines) + "\n"


def _cell(row: dict[str, Any], name: str) -> str:
    found = row[name]
    if "refused" in found:
        return "-"
    number = f"{found['nmse']:.2e}"
    return f"{f'**{number}**' if _is_wrong(row, name) else number}, {found['top1']:.1%}"


def _errors(row: dict[str, Any]) -> dict[str, float]:
    return {name: found["nmse"] for name, found in row.items() if isinstance(found, dict) and "nmse" in found}


def _is_wrong(row: dict[str, Any], name: str) -> bool:
    errors = _errors(row)
    return errors[name] > max(WRONG, TIMES * min(errors.values()))


def _verdict(table: dict[str, Any], engines: Sequence[str]) -> list[str]:
    ours = engines[0]
    compared = {key: row for key, row in table.items() if len(_errors(row)) > 1 and ours in _errors(row)}
    wrong = {
        key: row
        for key, row in compared.items()
        if any(_is_wrong(row, name) for name in _errors(row) if name != ours)
    }
    best = sum(_errors(row)[ours] == min(_errors(row).values()) for row in wrong.values())
    ours_wrong = sum(_is_wrong(row, ours) for row in compared.values())
    lines = _paragraph(
        f"Of {len(compared)} files that several engines run, another engine computes another model in {len(wrong)}, "
        f"and phicandle is the most exact in {best} of these; phicandle computes another model in {ours_wrong}."
    )
    largest = [key for key, row in compared.items() if _errors(row)[ours] == max(_errors(row).values())]
    if not largest:
        return [*lines, "There is no file on which phicandle's NMSE is the largest."]
    lines += ["", f"On {len(largest)} files phicandle's NMSE is the largest, by this much over the next:", ""]
    for key in largest:
        errors = _errors(compared[key])
        mine = errors.pop(ours)
        lines.append(f"- {key.replace('|', ', ')}: {mine / max(errors.values()) - 1:.1%}")
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


def _greedy(decided: list[dict[str, Any]], questions: list[dict[str, Any]]) -> list[str]:
    equal = sum(result["equal"] for result in decided)
    near = all(r["equal"] or min(r["phicandle_gap"], r["llama_gap"]) <= GAP for r in decided)
    return [
        "## Greedy answers beside llama.cpp's",
        "",
        *_paragraph(
            "SmolLM2-135M-Instruct in Q4_1, 64 tokens for each prompt. Both engines' logits are a little off those of "
            "exact arithmetic (see above), so they can agree where the best token leads by more than that. The first "
            "prompts were chosen for it, by phicandle's leads alone; a lead is the least of an answer, between the two "
            "best logits."
        ),
        "",
        *_answers(decided),
        "",
        f"At least 9 of 10 equal: {_yes(equal >= 9)}. Others part at a lead of 0.05 or less: {_yes(near)}.",
        "",
        *_paragraph(
            "Open questions, taken as they came to mind, often leave two tokens closer than that. Where the answers "
            "part, the two best logits are this far apart in each engine:"
        ),
        "",
        *_answers(questions),
    ]


def _answers(results: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| prompt | lead | tokens in common | phicandle's gap | llama.cpp's gap |",
        "|---|---:|---:|---:|---:|",
    ]
    for result in results:
        prompt = result["question"].replace("\n", " ").strip()
        if result["equal"]:
            cells = "all | - | -"
        else:
            cells = f"{result['place']} | {result['phicandle_gap']:.3f} | {result['llama_gap']:.3f}"
        lines.append(f"| {prompt} | {result['least_gap']:.3f} | {cells} |")
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
