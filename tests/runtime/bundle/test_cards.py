"""Names in a card: Markdown shows them as they are."""

from __future__ import annotations

import pytest

from bertport.runtime.bundle.cards import code, prose


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
        ("my_own_model", "my_own_model"),
        ("_my_ __model__", r"\_my\_ \_\_model\_\_"),
        ("a\n\n# b\r\u2028c", "a  # b  c"),
        ("[a](http://b) ![c](d)", r"\[a\](http://b) !\[c\](d)"),
        ("<!-- begin --> &lt; `a` | *b* ~~c~~ \\", r"\<!-- begin --> \&lt; \`a\` \| \*b\* \~\~c\~\~ \\"),
    ],
)
def test_prose_has_no_markup(text, written):
    assert prose(text) == written


@pytest.mark.parametrize(
    ("text", "written"),
    [("bert_base", "`bert_base`"), ("a`b``c", "```a`b``c```"), ("`a", "`` `a ``"), ("", "`  `"), ("a\nb", "`a b`")],
)
def test_code_ends_where_its_text_does(text, written):
    assert code(text) == written
