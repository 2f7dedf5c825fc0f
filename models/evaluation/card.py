"""The default model's card: a template filled with what was recorded and measured, and nothing typed by hand."""

from pathlib import Path
from string import Template
from typing import Any

from bertport.export.card import model_card
from bertport.quantize.card import quantized_section
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.installation import portable_install_command
from evaluation.plot import plot_curve
from evaluation.record import CURVE, Record, read_record

TEMPLATE = Path(__file__).with_name("card.md")
CORPUS_TOKENS = 33_000_000
"""Tokens of the training text, about; the corpus's README says so."""
AIMS = {"mlm_top1": ("masked words, top 1", 0.38), "nsp_accuracy": ("next sentence", 0.75)}
"""Aims of the recipe on a CPU, by score: the title, and the value to be reached."""
SCORES = {
    "mlm_top1": "MLM top-1",
    "mlm_top5": "MLM top-5",
    "mlm_perplexity": "MLM perplexity",
    "pseudo_perplexity": "pseudo-perplexity",
    "nsp_accuracy": "NSP accuracy",
}
PERPLEXITIES = frozenset({"mlm_perplexity", "pseudo_perplexity"})
LOG_ROWS = 8
EVEN = 0.5
"""The probability above which a pair counts as consecutive."""


def write_card(bundle: Path, training: Path) -> None:
    """Write a bundle's README.md, and its learning curve beside the record.

    Raises:
        RecipeError: when the record is not complete.
        BundleError: when there is no bundle.
    """
    record = read_record(training)
    plot_curve(record.log, training / CURVE)
    (bundle / "README.md").write_text(render_card(Bundle.open(bundle), record), encoding="utf-8")


def render_card(bundle: Bundle, record: Record) -> str:
    """Return the card's Markdown."""
    manifest, run, evaluation = bundle.manifest, record.run, record.evaluation
    shape, schedule, progress = manifest.architecture, run["schedule"], run["progress"]
    variant = (
        manifest.default_variant
        if manifest.default_variant in evaluation["scores"]
        else next(iter(evaluation["scores"]))
    )
    answers = evaluation["answers"][variant]
    pairs = answers["next_sentence"]
    generated = _sections(model_card(manifest))
    counts = evaluation["scores"][variant][str(schedule["length"])]["all"]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        name=manifest.name,
        installation=portable_install_command("cpu"),
        layers=shape.layers,
        hidden=shape.hidden_size,
        attention_heads=shape.attention_heads,
        vocab_size=f"{shape.vocab_size:,}",
        parameters=f"{shape.parameters:,}",
        max_length=manifest.max_length,
        start_sha256=run["settings"]["start_sha256"],
        length=schedule["length"],
        long_length=schedule["long_length"],
        steps=f"{progress['step']:,}",
        tokens_per_batch=f"{schedule['tokens_per_batch']:,}",
        betas=" and ".join(map(str, schedule["betas"])),
        epsilon=schedule["epsilon"],
        weight_decay=schedule["weight_decay"],
        peak_rate=schedule["peak_rate"],
        warmup=f"{schedule['warmup']:.0%}",
        clip=schedule["clip"],
        dtype=run["settings"]["dtype"],
        seed=run["settings"]["seed"],
        schedule_note=_schedule_note(run["schedule_tokens"], record.log),
        tokens=f"{progress['tokens'] / 1e6:.1f} million",
        epochs=f"{progress['tokens'] / CORPUS_TOKENS:.2f}",
        hours=f"{progress['seconds'] / 3600:.1f}",
        machine=run["machine"],
        speed=f"{progress['tokens'] / progress['seconds']:,.0f}",
        curve=CURVE,
        log_table=_log_table(record.log),
        evaluation_seed=evaluation["seed"],
        masked=f"{counts['mlm_top1']['count']:,}",
        pairs=f"{counts['nsp_accuracy']['count']:,}",
        sentences=evaluation["sentences"],
        score_tables=_score_tables(evaluation["scores"]),
        aims=_aims(variant, counts),
        variant=variant,
        words_table=_words_table(answers["fill_mask"]),
        pairs_table=_pairs_table(pairs),
        all_pairs=len(pairs),
        accepted=sum(pair["p_continuation"] > EVEN for pair in pairs),
        refused=sum(pair["p_stranger"] <= EVEN for pair in pairs),
        ordered=sum(pair["p_continuation"] > pair["p_stranger"] for pair in pairs),
        bias_table=_words_table(answers["bias"]),
        graphs=f"{generated['Graphs']}\n\n{quantized_section(manifest)}".rstrip("\n"),
        citation=generated["Citation"],
    )


def _sections(card: str) -> dict[str, str]:
    """Split a generated card at its second-level headings."""
    parts = (part.partition("\n") for part in card.split("\n## ")[1:])
    return {heading: text.strip() for heading, _, text in parts}


def _schedule_note(tokens: list[int], log: list[dict[str, float]]) -> str:
    if len(tokens) == 1:
        return ""
    former = ", then ".join(f"{count / 1e6:g} million" for count in tokens[:-1])
    note = f" The schedule was first made for {former} tokens, and changed under way."
    ended = [f"{entry['tokens'] / 1e6:.1f} million" for entry in log[:-1] if entry["rate"] == 0]
    return f"{note} It had ended at {' and at '.join(ended)} tokens and was taken up again there." if ended else note


def _log_table(log: list[dict[str, float]]) -> str:
    chosen = sorted({round(index * (len(log) - 1) / (LOG_ROWS - 1)) for index in range(LOG_ROWS)})
    rows = [
        f"| {entry['tokens'] / 1e6:.1f} | {entry['train_mlm_loss']:.2f} | {entry['heldout_mlm_loss']:.2f} "
        f"| {entry['heldout_mlm_top1']:.1%} | {entry['heldout_nsp_accuracy']:.1%} |"
        for entry in (log[index] for index in chosen)
    ]
    titles = ("million tokens", "training MLM loss", "held-out MLM loss", "held-out MLM top-1", "held-out NSP")
    head = f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}"
    note = "These are of a small held-out sample of 256 pairs, drawn for the curve."
    return "\n".join([head, *rows, "", note])


def _score_tables(scores: dict[str, Any]) -> str:
    lines = [f"| variant | sample | text | {' | '.join(SCORES.values())} |", "|" + "---|" * (3 + len(SCORES))]
    for variant, samples in scores.items():
        for sample, parts in samples.items():
            label = "sentences" if sample == "sentences" else f"{sample} tokens"
            for part, estimates in parts.items():
                cells = [_cell(name, estimates[name]) if name in estimates else "" for name in SCORES]
                lines.append(f"| `{variant}` | {label} | {part} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(name: str, estimate: dict[str, float]) -> str:
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    if name in PERPLEXITIES:
        return f"{value:.1f} ({low:.1f}-{high:.1f})"
    return f"{value:.1%} ({low:.1%}-{high:.1%})"


def _aims(variant: str, scores: dict[str, dict[str, float]]) -> str:
    lines = [f"| aim for a training on CPUs | wanted | `{variant}` | |", "|---|---|---|---|"]
    for name, (label, aim) in AIMS.items():
        value = scores[name]["value"]
        lines.append(f"| {label} | at least {aim:.0%} | {value:.1%} | {'reached' if value >= aim else 'missed'} |")
    return "\n".join(lines)


def _words_table(rows: list[dict[str, Any]]) -> str:
    lines = ["| prompt | answers |", "|---|---|"]
    for sentence in rows:
        words = ", ".join(f"{_escape(word)} {100 * score:.1f}" for word, score in sentence["answers"])
        lines.append(f"| {_escape(sentence['text'])} | {words} |")
    return "\n".join(lines)


def _pairs_table(pairs: list[dict[str, Any]]) -> str:
    lines = ["| first | second | follows, by the model |", "|---|---|---|"]
    for pair in pairs:
        first = _escape(pair["first"])
        lines.append(f"| {first} | {_escape(pair['continuation'])} | {100 * pair['p_continuation']:.1f} |")
        lines.append(f"| {first} | *(stranger)* {_escape(pair['stranger'])} | {100 * pair['p_stranger']:.1f} |")
    return "\n".join(lines)


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")
