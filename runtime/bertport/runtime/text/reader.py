"""Reading the tokens of a long text piece by piece, so that only as much is tokenized as is used.

The tokenizer is called with the GIL released and with a bounded piece of the text at a time. Where its rules look at a
word and not beyond it, as BERT's do, the pieces give exactly the tokens of the whole: of each piece those words are
taken of which nothing behind the piece can change anything, and the next piece begins behind them. Where they look no
further than a space before an ASCII letter, as those of byte-level BPE and of SentencePiece do, a piece ends
before such a space. Any other tokenizer is given the whole text in one call.
"""

from __future__ import annotations

import json
import re
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unicodedata import category, combining

if TYPE_CHECKING:
    from collections.abc import Sequence

    import tokenizers

__all__ = ["PIECE", "Reader", "Rules", "encoding_of_part"]

PIECE = 8192
"""Characters tokenized at once, where nothing else is asked for: 4 to 11 ms."""
CHARACTERS = 8
"""Characters of a token and the space before it, amply: English has about five."""
LETTER = "a"
"""Stand-in for each letter of a word that is too long to be looked up."""
BEGINNINGS = "LNPS"
"""Classes of characters that no normal form drops: what an added token begins with, if a word before it ends there."""
GAP = re.compile(r"[!-~] [0-9A-Za-z]")
"""A space before which a text may be cut: no normal form, pattern or added token spans it."""
CHARACTERWISE = frozenset(
    {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Strip", "StripAccents"}
)
"""Normalizers that change nothing at a gap; Strip, only at the ends of a text."""
OF_SPACES = frozenset({" {2,}", r"\s{2,}|[\n\r\t]"})
"""Patterns that the classes of transformers replace, which a gap does not match."""
WORDWISE = frozenset({"BertPreTokenizer", "ByteLevel", "Metaspace", "Punctuation", "WhitespaceSplit"})
"""Pre-tokenizers that split at a gap, or whose words are split there by the others."""
SPLITTING = frozenset({"BertPreTokenizer", "ByteLevel", "Metaspace", "WhitespaceSplit"})
"""Pre-tokenizers of `WORDWISE` that split at a gap themselves."""
WHITE = (
    "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""Characters that separate words: Unicode's white space, without the four control characters that `str.isspace`
accepts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Rules of a tokenizer that tokenizing in pieces relies on."""

    tokenizer: tokenizers.Tokenizer
    """Without truncation and padding."""
    local: bool
    """Whether a word's tokens depend on nothing but the word."""
    spaced: bool
    """Whether no token depends on what is on the other side of a gap, so that a text is cut at gaps."""
    margin: int
    """Characters of the longest added token: so near the end of a piece, a word may be the beginning of one."""
    added: frozenset[str]
    """Texts of the added tokens."""
    plain: frozenset[str]
    """Added tokens that match by their text alone, whatever stands beside it."""
    longest_word: int
    """Characters of the longest word that the model looks up; longer ones are its unknown token."""
    unknown: int
    """Id of the unknown token."""
    shortens: bool
    """Whether an unfinished word may be read on in its normal form: no added token can begin inside a word."""

    @classmethod
    def of(cls, tokenizer: tokenizers.Tokenizer) -> Rules:
        """Return the rules of a tokenizer."""
        added = list(tokenizer.get_added_tokens_decoder().values())
        kinds = [
            type(part).__name__ for part in (tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.model) if part
        ]
        unknown = tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or "")
        local = (
            [kind for kind in kinds if kind != "BertNormalizer"] == ["BertPreTokenizer", "WordPiece"]
            and unknown is not None
            and not any(
                token.normalized
                or token.single_word
                or token.lstrip
                or token.rstrip
                or any(map(str.isspace, token.content))
                or category(token.content[:1] or " ")[0] not in BEGINNINGS
                for token in added
            )
        )
        return cls(
            tokenizer=tokenizer,
            local=local,
            spaced=not local and _is_spaced(tokenizer, added),
            margin=max([len(token.content) for token in added], default=1),
            added=frozenset(token.content for token in added),
            plain=frozenset(token.content for token in added if not token.normalized and not token.single_word),
            longest_word=tokenizer.model.max_input_chars_per_word if local else 0,
            unknown=unknown if local else 0,
            shortens=all(token.content[:1] in string.punctuation for token in added),
        )

    def finds(self, token: str) -> bool:
        """Return whether an added token is found wherever its text is."""
        others = self.added - {token}
        bounded = self.local or self.spaced
        return bounded and token in self.plain and not any(_overlap(token, other) for other in others)

    def normal(self, text: str) -> str:
        """Return the normal form of a text."""
        return _normal(self.tokenizer, text)


class Reader:
    """The tokens of one text, without special ones, as far as they are asked for.

    Args:
        rules: of the tokenizer.
        text: Unicode text.
        piece: characters to tokenize at once; more only where a tokenizer's rules leave no other way.
        spans: tell which characters each token stands for.
    """

    def __init__(self, rules: Rules, text: str, piece: int = PIECE, *, spans: bool = False) -> None:
        self.text = text
        self.spans: list[tuple[int, int]] = []
        """First character of each token of the last `read` and the one behind its last, where they are asked for."""
        self.words: list[int] = []
        """Number of the word that each token of the last `read` is of, counted through the text, where spans are asked
        for."""
        self.at = 0
        """Index of the first character of the text that is not yet read."""
        self.done = False
        """Whether every token was read."""
        self._rules = rules
        bounded = rules.local or rules.spaced
        self._piece = self._size = max(piece, 2 * rules.margin) if bounded else max(1, len(text))
        self._head = ""  # read, and still to be tokenized with what follows
        self._skipped = 0  # tokens at the beginning of `_head` that were given already
        self._begin = 0  # where the text that `_head` stands for begins
        self._spans = spans
        self._numbered = 0  # words so far
        self._before = ""  # what is tokenized again with a piece behind a gap, for its spans alone

    def read(self) -> list[int]:
        """Return the next ids: none where a piece holds none, or none that is certain yet."""
        if self._rules.spaced:
            return self._read_to_gap()
        end = min(len(self.text), self.at + self._size)
        piece = self._head + self.text[self.at : end]
        self.spans, self.words = [], []
        if end == len(self.text):
            tokenizer = self._rules.tokenizer
            encode = tokenizer.encode_batch if self._spans else tokenizer.encode_batch_fast
            [encoding] = encode([piece], add_special_tokens=False)
            self._tell(encoding, self._skipped, len(encoding))
            self.at, self.done = end, True
            return list(encoding.ids[self._skipped :])
        [encoding] = self._rules.tokenizer.encode_batch([piece], add_special_tokens=False)
        bound = len(piece) - self._rules.margin
        count = self._certain(encoding, piece, bound)
        if not count:
            return self._go_on(encoding, piece, bound)
        self._tell(encoding, self._skipped, count)
        used = encoding.token_to_chars(count)[0] if count < len(encoding) else encoding.token_to_chars(count - 1)[1]
        self.at += max(0, used - len(self._head))
        self._head = self._head[used:]
        ids = list(encoding.ids[self._skipped : count])
        self._skipped, self._size = 0, self._piece
        return ids

    def _read_to_gap(self) -> list[int]:
        """Return the ids up to the last gap of the next piece, or to the end of the text."""
        self.spans, self.words = [], []
        end = min(len(self.text), self.at + self._size)
        if end < len(self.text):
            gap = _last_gap(self.text, self.at, end)
            if gap is None:
                self._size *= 2
                return []
            end = gap
        start, self.at = self.at, end
        self.done, self._size = end == len(self.text), self._piece
        if self._spans:
            return self._with_spans(start)
        [encoding] = self._rules.tokenizer.encode_batch_fast([self.text[start:end]], add_special_tokens=False)
        return list(encoding.ids)

    def _with_spans(self, start: int) -> list[int]:
        """Return the ids of the text from a gap to where it was read to, and note their characters.

        A tokenizer may count the space that a piece begins with to the first word, or strip it, where it does neither
        within a text. So the piece is tokenized with what stands before it: a character, or a whole added token.
        """
        tokenizer, before = self._rules.tokenizer, self._before
        texts = [before + self.text[start : self.at], *([before] if before else [])]
        encoding, *again = tokenizer.encode_batch(texts, add_special_tokens=False)
        first = len(again[0]) if again else 0
        shift = start - len(before)
        self.spans = [(shift + begin, shift + behind) for begin, behind in encoding.offsets[first:]]
        self._number(encoding.word_ids[first:])
        ids = list(encoding.ids[first:])
        self._before = self.text[self.at - 1 : self.at]
        if ids and tokenizer.id_to_token(ids[-1]) in self._rules.added:
            self._before = self.text[slice(*self.spans[-1])]
        return ids

    def _tell(self, encoding: tokenizers.Encoding, first: int, end: int) -> None:
        """Note the characters of some tokens, where they are asked for.

        A token of a word that is longer than a piece begins where the word does, and ends where it was read to.
        """
        if self._spans:
            read = len(self._head)
            self.spans = [
                (self._begin if begin < read else self.at + begin - read, self.at + max(0, behind - read))
                for begin, behind in encoding.offsets[first:end]
            ]
            self._number(encoding.word_ids[first:end])

    def _number(self, words: Sequence[int]) -> None:
        """Set the numbers of the words of tokens that were read, on from those before."""
        self.words = [self._numbered + word for word in words]
        self._numbered = max(self.words, default=self._numbered - 1) + 1

    def _certain(self, encoding: tokenizers.Encoding, piece: str, bound: int) -> int:
        """Return the number of tokens of words that nothing behind the piece can change."""
        count = after = len(encoding)
        # The last word may go on behind the piece; and so near its end any may be the beginning of an added token.
        word = encoding.token_to_word(count - 1) if count else None
        start = len(piece)
        while count:
            before, (begin, end) = encoding.token_to_word(count - 1), encoding.token_to_chars(count - 1)
            if count == after:
                whole = piece[begin:end] in self._rules.added
            else:
                whole = before != word and end <= start and _parts_at(piece, start)
            if whole and end <= bound:
                break
            word, start = before, begin
            count -= 1
        return count

    def _go_on(self, encoding: tokenizers.Encoding, piece: str, bound: int) -> list[int]:
        """Extend a piece that holds no more than the beginning of a word, or nothing.

        What was read is replaced by its normal form, which the tokenizer takes for the same word, or, once the word is
        too long to be looked up, by one as long of a letter; then its token is known, and is given. So neither a word
        without end nor a run of characters that the tokenizer drops makes the pieces grow.
        """
        rules = self._rules
        known = rules.shortens
        if len(encoding):
            begin, end = encoding.token_to_chars(0)
            if piece[begin:end] in rules.added:
                bound = min(bound, begin)
            known = known and _second_word(encoding, piece) >= bound > len(self._head)
        if not known:
            self._size *= 2
            return []
        normal = rules.normal(piece[:bound])
        word = normal.strip(WHITE)
        ids: list[int] = []
        if len(word) > rules.longest_word:
            word = LETTER * (rules.longest_word + 1)
            if not self._skipped:
                ids, self._skipped = [rules.unknown], 1
        if ids:
            self._tell(encoding, 0, 1)
        if rules.normal(word).strip(WHITE) != word:
            self._size *= 2
            return ids
        if not self._head:
            self._begin = self.at + (encoding.token_to_chars(0)[0] if len(encoding) else 0)
        self.at += bound - len(self._head)
        self._head = word + (" " if normal.endswith(tuple(WHITE)) else "")
        self._size = self._piece
        return ids


def encoding_of_part(rules: Rules, text: str, count: int, *, last: bool = False) -> tokenizers.Encoding:
    """Return the tokens of a part of a text which has its first tokens, or its last ones, without special ones.

    Args:
        rules: of the tokenizer.
        text: Unicode text.
        count: how many tokens the part has at least, where the text has as many.
        last: whether the part is the end of the text, and not its beginning.
    """
    size = CHARACTERS * max(1, count) if rules.local or rules.spaced else len(text)
    while size < len(text):
        gap = _last_gap(text, 0, len(text) - size) if last else _last_gap(text, 0, size)
        if gap is not None:
            encoding = rules.tokenizer.encode(text[gap:] if last else text[:gap], add_special_tokens=False)
            if len(encoding) >= count:
                return encoding
        size *= 2
    return rules.tokenizer.encode(text, add_special_tokens=False)


def _is_spaced(tokenizer: tokenizers.Tokenizer, added: list[tokenizers.AddedToken]) -> bool:
    """Return whether no token depends on what is on the other side of a gap."""
    normalizers = _listed(tokenizer.normalizer, "normalizers")
    pre_tokenizers = _listed(tokenizer.pre_tokenizer, "pretokenizers")
    kinds = [pre_tokenizer["type"] for pre_tokenizer in pre_tokenizers]
    return (
        all(normalizer["type"] in CHARACTERWISE or _replaces_no_gap(normalizer) for normalizer in normalizers)
        and WORDWISE.issuperset(kinds)
        and not SPLITTING.isdisjoint(kinds)
        and all(part.get("use_regex", True) and part.get("split", True) for part in pre_tokenizers)
        and (not any(part.get("strip_left") for part in normalizers) or _marks_beginning(pre_tokenizers, added))
        and not getattr(tokenizer.model, "dropout", None)
        and not any(
            token.rstrip or GAP.search(token.content) or GAP.search(_normal(tokenizer, token.content))
            for token in added
        )
    )


def _normal(tokenizer: tokenizers.Tokenizer, text: str) -> str:
    return str(tokenizer.normalizer.normalize_str(text)) if tokenizer.normalizer else text


def _listed(part: Any, name: str) -> list[dict[str, Any]]:  # noqa: ANN401 — a part of a Tokenizer, which is not typed
    """Return what a part of a tokenizer is made of, in order."""
    state = json.loads(part.__getstate__()) if part else None
    if state is None:
        return []
    return list(state[name]) if state["type"] == "Sequence" else [state]


def _marks_beginning(pre_tokenizers: list[dict[str, Any]], added: list[tokenizers.AddedToken]) -> bool:
    """Return whether what follows a gap has the same form where the space before it is stripped."""
    marked = (
        part["type"] in ("BertPreTokenizer", "WhitespaceSplit") or part.get("prepend_scheme") == "always"
        for part in pre_tokenizers
    )
    # A token of normal text is found when the space is gone, and then has no mark of one before it.
    return all(marked) and not any(token.normalized and token.content[:1].isalnum() for token in added)


def _replaces_no_gap(normalizer: dict[str, Any]) -> bool:
    """Return whether a normalizer replaces a text or a pattern that spans no gap."""
    pattern = normalizer.get("pattern", {})
    return normalizer["type"] == "Replace" and (
        pattern.get("Regex") in OF_SPACES or ("String" in pattern and " " not in pattern["String"])
    )


def _last_gap(text: str, start: int, end: int) -> int | None:
    """Return the last place between two others before which a text may be cut; None where there is none."""
    place = text.rfind(" ", start + 1, end)
    while place > start and not GAP.fullmatch(text, place - 1, place + 2):
        place = text.rfind(" ", start + 1, place)
    return place if place > start else None


def _parts_at(piece: str, place: int) -> bool:
    """Return whether a place is not within a run of combining characters, which the normal form may reorder.

    The tokenizer's offsets of what it reordered are not those of the characters.
    """
    return place == 0 or not (combining(piece[place]) and combining(piece[place - 1]))


def _second_word(encoding: tokenizers.Encoding, piece: str) -> int:
    """Return where the second word begins at the earliest; the length of the piece where there is none."""
    first = encoding.token_to_word(0)
    for index in range(1, len(encoding)):
        if encoding.token_to_word(index) != first:
            start: int = encoding.token_to_chars(index)[0]
            while not _parts_at(piece, start):
                start -= 1
            return start
    return len(piece)


def _overlap(one: str, other: str) -> bool:
    """Return whether two texts can share characters of a third."""
    ends = range(1, min(len(one), len(other)))
    return one in other or other in one or any(one[-n:] == other[:n] or other[-n:] == one[:n] for n in ends)
