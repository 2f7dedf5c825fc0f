"""Validation texts: every kind that is known to tell two tokenizers apart."""

# ruff: noqa: RUF001 — look-alikes are meant as they are

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from tokenizers import AddedToken

__all__ = ["long_texts", "pairs_of", "texts_for"]

SEED = 20260101
"""Seed of the draws from the vocabulary."""
SAMPLED = 60
"""Entries of the vocabulary that texts are made of, of each kind."""
MOST_ADDED = 40
"""Added tokens that are tried, at most: some tokenizers have a thousand."""

PLAIN = (
    "",
    "a",
    "The quick brown fox jumps over the lazy dog.",
    "Hello, world! It's 10:30 o'clock; isn't it?",
    "unaffable antidisestablishmentarianism ultramicroscopicsilicovolcanoconiosis",
    "UPPER lower MiXeD camelCase snake_case kebab-case",
    "3.14159 1,000,000 1e-5 0x1F 50% $9.99 €10 £5 ¥7 №1 ½ ² Ⅷ ①",
    "e-mail@example.org https://example.org/a/b?c=d&e=f#g C:\\Windows\\x /usr/bin",
    "“quotes” ‘single’ «guillemets» „low“ – en — em … ellipsis ′prime″",
    "def f(x): return x**2  # comment\n\tif a != b && !c { d[0] = '\\n'; }",
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    "##a ## # ###b a##b [unused1] [ unused1 ] [UNK] <unk> <s> </s> <pad> <mask> [PAD]",
    "don't can't won't I'm you're he's we've they'll I'd o'clock rock 'n' roll",
)
MARKS = (
    "▁a ▁▁b a▁b ▁ Ġa aĠb Ċ Ã© ĉ </w>a a</w> a@@ b@@c ‖ <0x0A> <0xE2> <|endoftext|>",
    " a  b   c    d     e",
    "  a\n b\n\n  c \n\n\n d\t\te ",
    "a\u2581b \u2581c\u00a0\u2581 d",
    "I'M YOU'RE it'S we'LL 's 't 'll 've 'd 'm're a's'",
    "x1y22z333 1234567890 12,345.67 a1 1a _a a_ -1",
    "\u00e9\u00e8 Ã© â\u0080\u0099 ã\u0081\u0082",
)
"""Marks of spaces, bytes and ends of words in the entries of other kinds than BERT's, and what those split."""
ACCENTS = (
    "Ünïcödé café naïve résumé São Paulo Łódź Đặng straße ŒUVRE İstanbul ıI ǅ ﬁ ﬂ ſ",
    "u\u0308 e\u0301 a\u0300\u0323 o\u0302\u0301 n\u0303 c\u0327 A\u030a i\u0307 \u0301alone x\u0301\u0301\u0301\u0301",
    "Việt Nam Tiếng Việt \u1e9e \u0130 \u212b \u2126 \ufb03 \u1fb3",
)
SCRIPTS = (
    "中文字符和漢字かなカナ한국어 조선말 ﾊﾝｶｸ ＦＵＬＬ　ＷＩＤＴＨ １２３",
    "東京タワーは333mです。「引用」、全角！？",
    "𠀀𠮷野家 𪚥 \U0002f800 ㈱ ㌔ 々〆",
    "Привет, мир! Ёлка ёжик Їжак Ѳ",
    "Καλημέρα κόσμε ΑΣ ας ΌΣΟΣ",
    "שלום עולם עברית שָׁלוֹם",
    "مرحبا بالعالم ٱلسَّلَامُ لا ﷺ ۱۲۳",
    "नमस्ते दुनिया क्षत्रिय হ্যালো வணக்கம் తెలుగు ಕನ್ನಡ മലയാളം ગુજરાતી ਪੰਜਾਬੀ",
    "สวัสดีชาวโลก ພາສາລາວ မြန်မာ ភាសាខ្មែរ བོད་སྐད་",
    "გამარჯობა ՀԱՅԵՐԵՆ հայերեն አማርኛ ᏣᎳᎩ ꓡꓲꓢꓴ ⲕⲏⲙⲉ 𐌰𐌱 𝔣𝔯𝔞𝔨 𝟙𝟚 Ꭰꭰ",
)
SYMBOLS = (
    "😀 👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 ❤️ ☺ 1️⃣ 🫠 a😀b 😀😀",
    "© ® ™ § ¶ † ‡ • → ⇒ ∀ ∑ √ ∞ ≠ ≤ ♥ ♪ ✓ ☃ ⠁ ╬ █ ￼ �",
    "\u0000 a\u0000b \u0001\u0002 \u001b[31m red \u007f \u0080 \u0085 \u009f",
    "zero\u200bwidth \u200cnon\u200djoiner \u2060word \ufefffirst so\u00adft \u180e \u034f",
    "\u202aleft\u202c \u202eright\u202c \u2066isolate\u2069 \u200e \u200f",
    "\ue000\uf8ff\U000f0000\U0010fffd private",
    "\u0378\u0380\U000e0fff\U0001fffe\uffff\ufdd0 unassigned",
    "\u0600\u06dd\U000e0001\U000e0061 tag \ufff9a\ufffab\ufffb",
)
SPACES = (
    " ",
    "   ",
    "\t\n\r\x0b\x0c",
    " leading and trailing ",
    "two  spaces\tand\ttabs\nlines\r\nand\r\r\nmore\n\n",
    "a\u00a0b\u1680c\u2000d\u2003e\u2009f\u200ag\u2028h\u2029i\u202fj\u205fk\u3000l\u0085m",
    "a\x1cb\x1dc\x1ed\x1fe",
)
CHARACTERS = (
    "aAzZ09äßſİıÑñøŁƏǆΩωςЯяЁԱաאהباहि中々ぁアーｱㄅ가힣ㆍ𠀀𝐀😀🏽ﬁﷺ\u0301\u0308\u0345\u05b0\u064b\u093c\u0e31"
    "\u3099\u200b\u200d\ufe0f\ufeff\u00ad\u2028\u0000\u0007\u001c\u0085\ue000\uffff\U0010ffff"
    ".,!?-_'\"`#[]<>\\/|~^$+=@%&*(){}:;¡¿§·‐–—―‘’“”…‰′‹›€№™∑□♥、。「」！？：～￥"
)
"""One character of many kinds."""


def texts_for(
    vocabulary: Collection[str], added: Sequence[AddedToken], *, written: Callable[[str], str] = str
) -> list[str]:
    """Return some hundred texts for a tokenizer: always the same, and ones made of its own tokens.

    Args:
        vocabulary: its tokens.
        added: those of them that are looked for in a text before it is split into words.
        written: gives the text that an entry stands for, where the entry itself is not as it stands in a text.
    """
    draw = random.Random(SEED)  # noqa: S311 — a sample, no secret
    texts = [*PLAIN, *MARKS, *ACCENTS, *SCRIPTS, *SYMBOLS, *SPACES, *CHARACTERS]
    texts += ["".join(draw.sample(CHARACTERS, 2)) for _ in range(SAMPLED)]
    texts += ["".join(draw.choices(CHARACTERS + " ", k=12)) for _ in range(SAMPLED)]
    words = draw.sample(sorted(vocabulary), min(SAMPLED, len(vocabulary)))
    texts += words
    words = [written(word) for word in words]
    texts += [*words, *map(str.upper, words[:10]), *map(str.capitalize, words[10:20])]
    for _ in range(SAMPLED // 2):
        chosen = draw.choices(words or ["a"], k=draw.randint(2, 8))
        texts.append(draw.choice((" ", "", ", ", " - ")).join(chosen))
    special, others = ([token for token in added if token.special is kind] for kind in (True, False))
    tried = [*special[:MOST_ADDED], *draw.sample(others, min(MOST_ADDED, len(others)))]
    for token in tried:
        content = token.content
        texts += [
            content,
            f"a {content} b",
            f"a{content}b",
            f"  {content}  ",
            f"x.{content},{content}{content} y",
            f"{content.upper()} {content.lower()} {content[:-1]} {content[1:]}",
            f"é{content}\u0301 中{content}中 \n{content}\t{content}s",
        ]
    texts += [
        f"the {one.content}{other.content} of {other.content} {one.content}."
        for one, other in itertools.pairwise(tried[:MOST_ADDED])
    ]
    return texts


def long_texts(
    vocabulary: Collection[str], added: Sequence[AddedToken], *, written: Callable[[str], str] = str
) -> list[str]:
    """Return texts that are longer than a model takes: of many words, of one, and of what has no words."""
    draw = random.Random(SEED + 1)  # noqa: S311 — a sample, no secret
    entries = draw.sample(sorted(vocabulary), min(200, len(vocabulary)))
    words = [*map(written, entries), *PLAIN, *ACCENTS, *SCRIPTS, *SYMBOLS]
    mixed = " ".join(draw.choices([*words, *(token.content for token in added[:MOST_ADDED])], k=600))
    return [mixed, mixed[::-1], "a" * 150, "ab" * 5000, "é中😀" * 400, "word " * 800, "." * 1200, " \t" * 3000]


def pairs_of(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Return pairs of texts; none with an empty second one, which transformers takes for a single text."""
    draw = random.Random(SEED + 2)  # noqa: S311 — a sample, no secret
    seconds = [text for text in texts if text]
    return [(first, draw.choice(seconds)) for first in draw.sample(list(texts), min(SAMPLED, len(texts)))]
