"""Scores on held-out text: masked words, next sentences and pseudo-perplexity, with intervals and by source."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertport.measure.statistics import Estimate, bootstrap_sums, ratio, share
from evaluation.scorers import Scorer
from pretraining.corpus import Corpus
from pretraining.objective import Batch, SpecialTokens

TOP = 5
SENTENCE_LENGTHS = range(6, 65)
"""Sentences taken for the pseudo-perplexity, in tokens: shorter ones are fragments, longer ones cost much."""


@dataclass(slots=True)
class Sums:
    """Hits and sums by section of the corpus, which is what the intervals resample."""

    sections: int
    """Number of sections."""
    columns: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """Sums by name. Shape of each: (sections,)"""

    def add(self, name: str, sections: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Add one value per item to the sums of the sections they are from."""
        column = self.columns.setdefault(name, np.zeros(self.sections))
        np.add.at(column, sections, values)


def score_batches(scorer: Scorer, batches: Iterable[Batch], corpus: Corpus) -> Sums:
    """Predict every masked position and every next-sentence label."""
    sums = Sums(sections=len(corpus.names))
    for batch in batches:
        mlm, nsp = scorer(batch.input_ids, batch.token_type_ids, batch.masked_positions)
        rows = batch.masked_positions // batch.input_ids.shape[1]
        sections = batch.sections[rows, batch.token_type_ids.reshape(-1)[batch.masked_positions]]
        own = _own(mlm, batch.masked_labels)
        better = (mlm > own[:, None]).sum(axis=1)
        sums.add("masked", sections, np.ones(len(own)))
        sums.add("top1", sections, better < 1)
        sums.add(f"top{TOP}", sections, better < TOP)
        sums.add("mlm_loss", sections, _log_sum(mlm) - own)
        sums.add("pairs", batch.sections[:, 0], np.ones(len(nsp)))
        sums.add("nsp_right", batch.sections[:, 0], nsp.argmax(axis=1) == batch.next_sentence_labels)
    return sums


def score_sentences(scorer: Scorer, corpus: Corpus, special: SpecialTokens, *, sentences: int, seed: int) -> Sums:
    """Mask each token of a sample of sentences in turn, one at a time (Salazar et al. 2020, "Masked LM scoring")."""
    sums = Sums(sections=len(corpus.names))
    lengths = np.diff(corpus.sentence_starts)
    suited = np.flatnonzero(np.isin(lengths, SENTENCE_LENGTHS))
    chosen = np.random.default_rng([seed, 3]).permutation(suited)[:sentences]
    for sentence in chosen:
        begin, end = corpus.sentence_starts[sentence : sentence + 2]
        tokens = corpus.tokens[begin:end].astype(np.int64)
        rows = np.tile(np.concatenate([[special.cls], tokens, [special.sep]]), (len(tokens), 1))
        places = np.arange(len(tokens))
        rows[places, places + 1] = special.mask
        mlm, _ = scorer(rows, np.zeros_like(rows), places * rows.shape[1] + places + 1)
        sections = np.full(len(tokens), corpus.section_of(int(sentence)))
        sums.add("tokens", sections, np.ones(len(tokens)))
        sums.add("loss", sections, _log_sum(mlm) - _own(mlm, tokens))
    return sums


def summarize(sums: Sums, kept: NDArray[np.bool_]) -> dict[str, dict[str, float]]:
    """Return each score over the sections that are kept, with its 95% interval; scores without items are left out."""
    column = {name: values[kept] for name, values in sums.columns.items()}
    estimates: dict[str, Estimate] = {}
    if column.get("masked", np.zeros(0)).any():
        used = column["masked"] > 0
        masked = column["masked"][used]
        estimates["mlm_top1"] = share(column["top1"][used], masked)
        estimates[f"mlm_top{TOP}"] = share(column[f"top{TOP}"][used], masked)
        estimates["mlm_loss"] = ratio(column["mlm_loss"][used], masked)
        estimates["mlm_perplexity"] = _perplexity(column["mlm_loss"][used], masked)
    if column.get("pairs", np.zeros(0)).any():
        used = column["pairs"] > 0
        estimates["nsp_accuracy"] = share(column["nsp_right"][used], column["pairs"][used])
    if column.get("tokens", np.zeros(0)).any():
        used = column["tokens"] > 0
        estimates["pseudo_perplexity"] = _perplexity(column["loss"][used], column["tokens"][used])
    return {name: _rounded(estimate) for name, estimate in estimates.items()}


def _perplexity(losses: NDArray[np.float64], counts: NDArray[np.float64]) -> Estimate:
    columns = np.stack([losses, counts], axis=1)
    return bootstrap_sums(columns, lambda sums: np.exp(sums[0] / sums[1]), count=round(float(counts.sum())))


def _rounded(estimate: Estimate) -> dict[str, float]:
    return {name: round(value, 4) for name, value in asdict(estimate).items()}


def _own(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    own: NDArray[np.float32] = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    return own


def _log_sum(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    highest = logits.max(axis=1, keepdims=True)
    total: NDArray[np.float64] = np.log(np.exp(logits - highest).sum(axis=1, dtype=np.float64)) + highest[:, 0]
    return total
