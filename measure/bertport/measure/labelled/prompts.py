"""Prompts: what queries and documents of labelled data begin with, as a model that makes vectors was trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.measure.labelled.kinds import RANKING, RETRIEVAL
from bertport.runtime.errors import UsageError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.tasks.embeddings import Shared, beginning, facts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertport.runtime.bundle.manifest import Manifest

__all__ = ["DOCUMENT", "QUERY", "Prompts", "prompts_for"]

QUERY, DOCUMENT = "query", "document"
"""The sides of an example: of two texts the first and the second, of queries these and what they are to find."""
NAMES = {QUERY: ("query",), DOCUMENT: ("document", "passage", "corpus")}
"""Names of a model's prompts that a side takes by itself, the first that there is, as sentence-transformers documents
`encode_query` and `encode_document`. Its release 6 gives every model an empty `document`, and so never comes to the
other two."""
PLURALS = {QUERY: "queries", DOCUMENT: "documents"}
"""The sides in a note."""
SIDED = frozenset({RANKING, RETRIEVAL})
"""Kinds of data of queries and documents; two similar texts are of one kind."""
TASK = "sentence-similarity"
"""The task whose texts become vectors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """What the texts of each side begin with, beside what they are themselves."""

    query: str
    """What each query begins with, or the first of two texts."""
    document: str
    """What each document begins with, or the second of two texts."""
    note: str | None = None
    """Sentence on the prompts that were taken by their names; None where none was."""

    def to_json(self) -> dict[str, str]:
        """Return them by side."""
        return {QUERY: self.query, DOCUMENT: self.document}

    def before(self, inputs: Any) -> Any:  # noqa: ANN401 — of each kind of data another
        """Return the inputs of an example, as `Example.inputs` has them, each text with what it begins with."""
        match inputs:
            case str(query):
                return self.query + query
            case {"query": query, "documents": documents}:
                return {"query": self.query + query, "documents": [self.document + text for text in documents]}
        one, other = inputs
        return self.query + one, self.document + other


def prompts_for(task: str, kind: str, manifest: Manifest, asked: Mapping[str, str]) -> Prompts | None:
    """Return what the sides of a task's examples begin with; None for a task whose texts do not become vectors.

    Args:
        task: The task.
        kind: The kind of data.
        manifest: The bundle's.
        asked: The texts and the names of prompts that were asked for, by the names of
            `bertport.measure.labelled.options.PROMPT_HELP`. A side without either has the model's prompt for queries or
            documents, or none where it has none; of two similar texts both have the model's default.

    Raises:
        UsageError: for a task without prompts, a prompt that the model could not leave out again, and two of one side.
        UnknownNameError: for the name of a prompt that the model does not have.
    """
    if task != TASK:
        if asked:
            raise UsageError(
                f"a prompt is for texts that become vectors ({TASK}), and those of {task} do not: leave it out, or "
                "write it into the texts"
            )
        return None
    known, texts, taken = facts(manifest), {}, []
    for side, names in NAMES.items():
        text, name = asked.get(f"{side}_prompt"), asked.get(f"{side}_prompt_name")
        if text is None and name is None and kind in SIDED:
            name = next((each for each in names if each in known.prompts), None)
            text = "" if name is None else None
            if name is not None and known.prompts[name]:
                taken.append(f"{PLURALS[side]} with {name!r} ({excerpt(known.prompts[name])})")
        texts[side] = beginning(Shared(prompt=text, prompt_name=name), manifest)
    note = f"texts begin with the model's prompts, {', '.join(taken)}" if taken else None
    return Prompts(query=texts[QUERY], document=texts[DOCUMENT], note=note)
