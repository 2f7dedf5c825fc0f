"""Section of docs/reference/javascript.md on what was compared, from the data."""

from __future__ import annotations

from typing import Any

__all__ = ["section"]

NAMES = {"sentences": "sentences of the sample texts", "unicode": "strings of characters from all of Unicode"}

COLUMNS = (
    "task, on a small fine-tuned model",
    "this package, `portable`, differs by",
    "transformers.js, `portable`",
    "transformers.js, portable form of `int8-dynamic`",
)


def section(data: dict[str, Any]) -> str:
    """Return the section that `python -m bench.node` writes."""
    versions = ", ".join(f"{name} {number}" for name, number in data["versions"].items())
    machine = f"{data['machine']['cpu']} ({data['machine']['instruction_set']})"
    lines = [
        f"Commit {data['commit'][:10]}, {data['date'][:10]}, {machine}; {versions}. The reference is Python.",
        "",
        "**Ids** are equal for "
        + " and ".join(f"{row['equal']:,} of {row['texts']:,} {NAMES[kind]}" for kind, row in data["ids"].items())
        + ".",
        "",
        "| by | variant | best word | largest difference | next-sentence | largest difference | golden logits |",
        "|---|---|---|---|---|---|---|",
    ]
    for variant, tasks in data["variants"].items():
        words, labels = tasks["fill-mask"], tasks["next-sentence"]
        lines.append(
            f"| this package | `{variant}` | {_same(words)} | {words['largest_difference']:.0e} | {_same(labels)} | "
            f"{labels['largest_difference']:.0e} | {_golden(tasks['golden'])} |"
        )
    theirs = data["transformers_js"]
    tried = {"portable": theirs["fill-mask"], **theirs["variants"]}
    lines += [
        *(_by_transformers(f"`{variant}`", said) for variant, said in tried.items()),
        *(_by_transformers(_form(variant, said), said) for variant, said in theirs["forms"].items()),
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['task']} | {_far(row['largest_difference'])} | {_theirs(row['transformers_js'])} | "
        f"{_theirs(row['transformers_js_int8'])} |"
        for row in data["heads"]
    ]
    features = theirs["features"]["largest_difference"]
    form = theirs["forms"]["int8-dynamic"]
    int8 = _theirs(form if "fails" in form else form["features"])
    lines += [f"| features (the default model, mean) | | {_equal(features)} | {int8} |", ""]
    return "\n".join(lines)


def _same(row: dict[str, Any]) -> str:
    ties = f" and {row['ties']} as probable" if row["ties"] else ""
    return f"{row['equal']}{ties} of {row['texts']}"


def _form(variant: str, said: dict[str, Any]) -> str:
    return f'`{variant}`, portable form (`dtype: "{said["dtype"]}"`)'


def _by_transformers(what: str, said: dict[str, Any]) -> str:
    if "fails" in said:
        return f"| transformers.js | {what} | fails: {said['fails'].replace('|', '/')} | | | | |"
    words = said.get("fill-mask", said)
    return f"| transformers.js | {what} | {_same(words)} | {words['largest_difference']:.0e} | no pipeline | | |"


def _golden(row: dict[str, Any]) -> str:
    logits = row["outputs"]["logits"]
    return f"{'hold' if row['holds'] else 'FAIL'}: {logits['worst']:.0e} of {logits['tolerance']:g}"


def _far(difference: float | None) -> str:
    return "more than numbers" if difference is None else f"{difference:.0e}"


def _theirs(said: dict[str, Any] | str | None) -> str:
    if said is None or isinstance(said, str):  # a sentence in data of before
        return said or "has no pipeline for it"
    return f"fails: {said['fails']}" if "fails" in said else _equal(said["largest_difference"])


def _equal(difference: float | None) -> str:
    if difference is None:
        return "answers differently"
    return f"equal within {difference:.0e}" if difference else "equal"
