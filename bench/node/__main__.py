"""Compare answers of Node.js with those of Python's runtime on held-out texts, and write docs/reference/javascript.md.

    python -m bench.node [--bundle BUNDLE] [--check]

The package of `js/` answers from each variant of the default bundle through onnxruntime-node, and transformers.js from
its portable graph and from the INT8 variants: as they are, and in the portable form that `bertport pack --portable`
writes. `int8-static-cpu` is made for it, whatever it costs in accuracy. Small fine-tuned models
(`docs/small_models.py`) stand for the other heads. Ids are compared on the sentences of both samples and on seeded text
of characters from all of Unicode. Writes docs/data/node.json too; it takes minutes, and needs Node.js and npm, which
fetches packages. With `--check`, nothing is compared, and the exit code is 1 where the
page is not what the data say.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import unicodedata
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from bench.checkout import ROOT, check_section, provenance, read_data, write_section
from bench.node import packages
from bench.node.page import section
from bertport.measure.text import read_texts, sample_path
from bertport.runtime import load
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.portable import pack_portable
from bertport.runtime.tasks.table import TASKS

PAGE = ROOT / "docs" / "reference" / "javascript.md"
DATA = ROOT / "docs" / "data" / "node.json"
HERE = Path(__file__).parent
TEXTS = 200
"""Held-out texts with a mask, and pairs of texts."""
UNICODE_TEXTS = 3000
BETWEEN = ("", "", "", " ", "a", "B")
"""Strings of which one follows each character of such a text."""
WORDS = range(6, 61)
"""Words of a held-out text."""
TIE = 1e-4
"""Words whose probabilities are nearer than this may change places."""
STATIC = "int8-static-cpu"
MADE = ("--isa", "avx2", "--accuracy-budget", "none", "--force")
"""How variants are made here."""
VARIANTS = ("portable", "fp32", "int8-dynamic", STATIC)
DTYPES = {"int8-dynamic": "q8", STATIC: "uint8"}
"""transformers.js's `dtype` for the portable form of a variant, from which it makes the name of the file."""
HEADS: dict[str, tuple[str, str | None, list[Any], dict[str, Any]]] = {
    "classifier": (
        "text-classification",
        "text-classification",
        ["I loved this film.", "What a dull story, I hated it."],
        {},
    ),
    "tagger": (
        "token-classification",
        "token-classification",
        ["Clara works for Royal Mail in New York .", "P\u00e9ter met Anna in Berlin ."],
        {"aggregation_strategy": "simple"},
    ),
    "reader": (
        "question-answering",
        "question-answering",
        [{"question": "Where does Ann live?", "context": "Ann lives in Oslo. Bob lives in Rome."}],
        {},
    ),
    "ranker": (
        "text-ranking",
        None,
        [{"query": "Where does Ann live?", "documents": ["Bob lives in Rome.", "Ann lives in Oslo."]}],
        {},
    ),
    "embedder": ("embeddings", "feature-extraction", ["A man sat by the fire.", "It rained."], {"normalize": True}),
}
"""By small model: the task, transformers.js's pipeline for it (None where it has none), inputs and parameters."""
PIPELINES: dict[str, tuple[tuple[str, ...], dict[str, Any], dict[str, Any]]] = {
    "text-classification": (("label", "score"), {}, {}),
    "token-classification": (
        ("entity_group", "score"),
        {"aggregation_strategy": "simple"},
        {"aggregation_strategy": "simple"},
    ),
    # It takes the best span of tokens; with whole words, Python adds the scores of spans that become one answer.
    "question-answering": (("answer", "score"), {"align_to_words": False}, {}),
    "feature-extraction": ((), {"normalize": True}, {"pooling": "mean", "normalize": True}),
}
"""By transformers.js's pipeline: the fields that its answers have too, and parameters of the runtime and of it."""


def sentences(name: str) -> list[str]:
    """Return the sentences of a sample."""
    paragraphs = (text.text for text in read_texts(sample_path(name)))
    return [sentence for text in paragraphs for sentence in re.split(r"(?<=[.!?]) ", text) if sentence.strip()]


def masked(texts: list[str], mask: str, rng: np.random.Generator) -> list[str]:
    """Return texts of which one word is masked."""
    made = []
    for text in texts:
        words = list(re.finditer(r"[A-Za-z]+", text))
        word = words[rng.integers(len(words))]
        made.append(f"{text[: word.start()]}{mask}{text[word.end() :]}")
    return made


def from_unicode(count: int, rng: np.random.Generator) -> list[str]:
    """Return texts of characters from all of Unicode, every other one from its European scripts, CJK and emoji."""
    every = [
        chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) not in ("Cs", "Cn", "Co")
    ]
    usual = [*map(chr, range(0x600)), *map(chr, range(0x2000, 0x2100)), *map(chr, range(0x4E00, 0x4E80))]
    usual += map(chr, range(0x1F300, 0x1F6FF))
    texts = []
    for number in range(count):
        pool = every if number % 2 else usual
        places = rng.integers(len(pool), size=rng.integers(1, 40, endpoint=True))
        behind = rng.integers(len(BETWEEN), size=len(places))
        texts.append("".join(pool[place] + BETWEEN[other] for place, other in zip(places, behind, strict=True)))
    return texts


def ask(package: Path, requests: list[dict[str, Any]]) -> list[list[Any]]:
    """Return the package's answers to requests (`ask.mjs` says what they are)."""
    said = packages.run(HERE, "node", "ask.mjs", str(package), standard_input=json.dumps(requests))
    answers: list[list[Any]] = json.loads(said)
    return answers


def same_words(ours: list[Any], theirs: list[Any]) -> dict[str, Any]:
    """Return in how many texts the best word is the same, or as probable, and how far its probability is at most."""
    equal = ties = 0
    far = 0.0
    for mine, other in zip(ours, theirs, strict=True):
        near = {word["token"] for word in mine if mine[0]["score"] - word["score"] < TIE}
        equal += other[0]["token"] == mine[0]["token"]
        ties += other[0]["token"] != mine[0]["token"] and other[0]["token"] in near
        scores = {word["token"]: word["score"] for word in mine}
        far = max([far, *(abs(word["score"] - scores[word["token"]]) for word in other if word["token"] in scores)])
    return {"texts": len(ours), "equal": equal, "ties": ties, "largest_difference": far}


def same_labels(ours: list[Any], theirs: list[Any]) -> dict[str, Any]:
    """Return for how many pairs the label is the same, and how far its probability is at most."""
    equal = sum(mine["label"] == other["label"] for mine, other in zip(ours, theirs, strict=True))
    far = max(
        abs(mine["probabilities"][label] - other["probabilities"][label])
        for mine, other in zip(ours, theirs, strict=True)
        for label in mine["probabilities"]
    )
    return {"texts": len(ours), "equal": equal, "ties": 0, "largest_difference": far}


def difference(ours: Any, theirs: Any) -> float | None:  # noqa: ANN401 — answers of any task
    """Return how far numbers of two answers are at most; None where anything else in them is not the same."""
    if hasattr(ours, "tolist"):
        ours = ours.tolist()
    if isinstance(ours, float):
        return abs(ours - theirs) if isinstance(theirs, float | int) else None
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        pairs = [(ours[key], theirs[key]) for key in ours]
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = list(zip(ours, theirs, strict=True))
    else:
        return 0.0 if ours == theirs else None
    far = [difference(mine, other) for mine, other in pairs]
    return None if None in far else max((each for each in far if each is not None), default=0.0)


def compare_ids(package: Path, bundle: Path) -> dict[str, Any]:
    """Return on how many texts the ids of both tokenizers are the same."""
    kinds = {
        "sentences": sentences("calibration") + sentences("evaluation"),
        "unicode": from_unicode(UNICODE_TEXTS, np.random.default_rng(0)),
    }
    tokens = load(bundle).tokens
    answers = ask(package, [{"bundle": str(bundle), "asked": [["ids", texts, {}] for texts in kinds.values()]}])[0]
    compared = {}
    for (kind, texts), theirs in zip(kinds.items(), answers, strict=True):
        ours = [encoded.ids.tolist() for encoded in tokens.encode(texts, truncation=True)]  # type: ignore[union-attr]  # cut where too long
        equal = sum(mine == ids for mine, (ids, _) in zip(ours, theirs, strict=True))
        compared[kind] = {"texts": len(texts), "equal": equal}
    return compared


def compare_variants(package: Path, modules: Path, bundle: Path) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return what was compared by variant, of transformers.js on the portable graph, and its version."""
    rng = np.random.default_rng(0)
    long = [text for text in sentences("evaluation") if len(text.split()) in WORDS]
    places = sorted(rng.choice(len(long) - 1, size=TEXTS, replace=False).tolist())
    texts = masked([long[place] for place in places], load(bundle).mask_token or "", rng)
    pairs = [[long[place], long[place + 1 if number % 2 else -place - 1]] for number, place in enumerate(places)]
    asked: list[tuple[str, Any, dict[str, Any]]] = [
        ("fill-mask", texts, {"top_k": 5}),
        ("next-sentence", pairs, {}),
        ("prove", [], {}),
    ]
    answers = ask(package, [{"bundle": str(bundle), "variant": name, "asked": asked} for name in VARIANTS])
    compared = {}
    for name, (words, labels, proof) in zip(VARIANTS, answers, strict=True):
        model = load(bundle, variant=name, provider="cpu")
        ours = [list(model.predict(task, inputs, **parameters)) for task, inputs, parameters in asked[:2]]
        compared[name] = {
            "fill-mask": same_words(ours[0], words),
            "next-sentence": same_labels(ours[1], labels),
            "golden": {"holds": proof["holds"], "outputs": proof["outputs"]},
        }
    requests = [
        {"bundle": str(bundle), "task": "fill-mask", "inputs": [[text] for text in texts], "options": {"top_k": 5}},
        {
            "bundle": str(bundle),
            "task": "feature-extraction",
            "inputs": [[text] for text in texts],
            "options": {"pooling": "mean"},
        },
    ]
    said = json.loads(packages.run(HERE, "node", "transformers.mjs", str(modules), standard_input=json.dumps(requests)))
    tried = {name: tried_by_transformers(modules, bundle, name, texts) for name in VARIANTS if name.startswith("int8")}
    model = load(bundle, variant="portable", provider="cpu")
    vectors = list(model.predict("features", texts, pooling="mean"))
    theirs = {
        "fill-mask": same_words(list(model.predict("fill-mask", texts, top_k=5)), said["answers"][0]),
        "features": {"texts": TEXTS, "largest_difference": difference(vectors, [row[0] for row in said["answers"][1]])},
        "variants": tried,
        "forms": {name: from_form(modules, bundle, name, requests) for name in DTYPES},
    }
    return compared, theirs, said["version"]


def from_form(modules: Path, bundle: Path, variant: str, requests: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how far transformers.js's words and vectors are from the portable form of a variant.

    Args:
        modules: where transformers.js is installed.
        bundle: the bundle.
        variant: of the bundle.
        requests: for fill-mask and feature-extraction, of the same texts.
    """
    form = pack_portable(bundle, bundle.with_name(f"{bundle.name}-{variant}"), [variant])
    opened = {"bundle": str(form.path), "opened": {"dtype": DTYPES[variant]}}
    given = json.dumps([{**request, **opened} for request in requests])
    said = json.loads(packages.run(HERE, "node", "transformers.mjs", str(modules), standard_input=given))
    words, vectors = said["answers"]
    if fails := [answers[-1]["message"] for answers in (words, vectors) if "message" in answers[-1]]:
        return {"dtype": DTYPES[variant], "fails": fails[0]}
    model = load(bundle, variant=variant, provider="cpu")
    texts = [text for [text] in requests[0]["inputs"]]
    ours = list(model.predict("features", texts, pooling="mean"))
    return {
        "dtype": DTYPES[variant],
        "fill-mask": same_words(list(model.predict("fill-mask", texts, top_k=5)), words),
        "features": {"texts": len(texts), "largest_difference": difference(ours, [row[0] for row in vectors])},
    }


def tried_by_transformers(modules: Path, bundle: Path, variant: str, texts: list[str]) -> dict[str, Any]:
    """Return how far transformers.js's words are where it is told to open a variant's file, or how it fails."""
    model = load(bundle, variant=variant, provider="cpu")
    entry = model.bundle.manifest.variants[variant]
    opened = {"model_file_name": Path(entry.file).stem, "use_external_data_format": bool(entry.external_data)}
    request = {
        "bundle": str(bundle),
        "task": "fill-mask",
        "inputs": [[text] for text in texts],
        "options": {"top_k": 5},
    }
    given = json.dumps([{**request, "opened": opened}])
    said = packages.run(HERE, "node", "transformers.mjs", str(modules), standard_input=given)
    [answers] = json.loads(said)["answers"]
    if "message" in answers[-1]:
        return {"fails": answers[-1]["message"]}
    return same_words(list(model.predict("fill-mask", texts, top_k=5)), answers)


def python(*arguments: str) -> None:
    """Run a Python program whose output is not wanted; it is shown where the program fails."""
    done = subprocess.run([sys.executable, *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"python {' '.join(arguments)} failed: {done.stderr}")


def compare_heads(package: Path, modules: Path, directory: Path) -> list[dict[str, Any]]:
    """Return for each head of small models how far the package's answers are, and what transformers.js says."""
    python(str(ROOT / "docs" / "small_models.py"), str(directory))
    rows = []
    for name, (task, pipeline, inputs, parameters) in HEADS.items():
        bundle = directory / f"{name}-bundle"
        python("-m", "bertport.runtime", "export", str(directory / name), str(bundle))
        model = load(bundle, variant="portable", provider="cpu")
        ours = list(model.predict(task, inputs, **parameters))
        asked = [{"bundle": str(bundle), "variant": "portable", "asked": [[task, inputs, parameters]]}]
        [[theirs]] = ask(package, asked)
        said = int8 = None
        if pipeline is not None:
            said = said_by_transformers(modules, bundle, pipeline, task, inputs)
            python("-m", "bertport.runtime", "quantize", str(bundle), "--recipe", "int8-dynamic", *MADE)
            form = pack_portable(bundle, directory / f"{name}-form", ["int8-dynamic"]).path
            int8 = said_by_transformers(modules, form, pipeline, task, inputs, {"dtype": DTYPES["int8-dynamic"]})
        row = {
            "task": task,
            "bundle": name,
            "head": TASKS[task].usual_head,
            "largest_difference": difference(ours, theirs),
        }
        rows.append({**row, "transformers_js": said, "transformers_js_int8": int8})
    return rows


def said_by_transformers(  # noqa: PLR0913, PLR0917 — the request, and where it goes
    modules: Path,
    bundle: Path,
    pipeline: str,
    task: str,
    inputs: list[Any],
    opened: dict[str, str] | None = None,
) -> dict[str, str | float | None]:
    """Return how far transformers.js's answers are, None where they are others, or the words in which it fails."""
    fields, parameters, options = PIPELINES[pipeline]
    given = [list(value.values()) if isinstance(value, dict) else [value] for value in inputs]
    request = {"bundle": str(bundle), "task": pipeline, "inputs": given, "options": options, "opened": opened or {}}
    said = json.loads(
        packages.run(HERE, "node", "transformers.mjs", str(modules), standard_input=json.dumps([request]))
    )
    [answers] = said["answers"]
    if "message" in answers[-1]:
        return {"fails": answers[-1]["message"]}
    variant = "int8-dynamic" if opened else "portable"
    ours = list(load(bundle, variant=variant, provider="cpu").predict(task, inputs, **parameters))
    mine, theirs = ([shared(answer, fields) for answer in each] for each in (ours, answers))
    return {"largest_difference": difference(mine, theirs)}


def shared(answer: Any, fields: tuple[str, ...]) -> Any:  # noqa: ANN401 — an answer of any task
    """Return the fields of an answer that both give, texts in lower case; a vector, or a list of one, by itself."""
    if isinstance(answer, dict):
        found = {field: answer.get(field) for field in fields}
        return {field: value.lower() if isinstance(value, str) else value for field, value in found.items()}
    if isinstance(answer, list) and len(answer) == 1:
        return shared(answer[0], fields)
    return [shared(each, fields) for each in answer] if isinstance(answer, list) and fields else answer


def versions(package: Path, transformers_js: str) -> dict[str, str]:
    """Return what answered, by package."""
    said = {
        name: json.loads((package / "node_modules" / name / "package.json").read_text())["version"]
        for name in (
            "onnxruntime-node",
            "@huggingface/tokenizers",
        )
    }
    node = packages.run(HERE, "node", "--version").strip().removeprefix("v")
    return {
        "node": node,
        **said,
        "@huggingface/transformers": transformers_js,
        "onnxruntime": version("onnxruntime"),
        "tokenizers": version("tokenizers"),
    }


def measure(source: Path) -> dict[str, Any]:
    """Return all comparisons, of the default bundle or of one with more variants."""
    package, modules = packages.built(), packages.installed(packages.TRANSFORMERS_JS, "transformers.js")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        bundle = Path(shutil.copytree(source, directory / "default"))
        if STATIC not in load(bundle).bundle.manifest.variants:
            python("-m", "bertport.runtime", "quantize", str(bundle), "--recipe", STATIC, *MADE)
        python("-m", "bertport.runtime", "golden", str(bundle))  # of variants that have none
        ids = compare_ids(package, bundle)
        variants, transformers_js, release = compare_variants(package, modules, bundle)
        heads = compare_heads(package, modules, directory)
    return {
        **provenance(),
        "versions": versions(package, release),
        "ids": ids,
        "variants": variants,
        "transformers_js": transformers_js,
        "heads": heads,
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=default_bundle(), help="the default bundle with more variants")
    parser.add_argument("--check", action="store_true", help="compare the page with the data, and nothing else")
    arguments = parser.parse_args()
    if arguments.check:
        check_section(PAGE, section(read_data(DATA, "bench.node")), "bench.node")
        return
    if reason := packages.missing():
        sys.exit(reason)
    data = measure(arguments.bundle)
    DATA.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    write_section(PAGE, section(data))
    print(section(data))


if __name__ == "__main__":
    main()
