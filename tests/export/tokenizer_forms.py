"""The forms in which checkpoints bring their tokenizers: each changes a directory that BertTokenizerFast saved."""

from __future__ import annotations

import json

from tests.conftest import vocabulary

ROLES = {
    "bos_token": "<s>",
    "cls_token": "<s>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
"""Special tokens that are not BERT's own."""


def edit(path, **entries):
    """Set entries of a JSON file; None removes one."""
    value = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    value.update(entries)
    path.write_text(
        json.dumps({key: content for key, content in value.items() if content is not None}), encoding="utf-8"
    )


def lines(directory):
    return (directory / "vocab.txt").read_text(encoding="utf-8").splitlines()


def write_lines(directory, entries, end="\n"):
    (directory / "vocab.txt").write_bytes("".join(entry + end for entry in entries).encode())


def remove(directory, *names):
    for name in names:
        (directory / name).unlink(missing_ok=True)


def complete(_):
    pass


def vocabulary_only(directory):
    remove(directory, "tokenizer.json", "special_tokens_map.json")
    edit(directory / "tokenizer_config.json", added_tokens_decoder=None)


def no_settings(directory):
    vocabulary_only(directory)
    remove(directory, "tokenizer_config.json")


def json_alone(directory):
    remove(directory, "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")


def unsaid(directory):
    edit(directory / "tokenizer_config.json", do_lower_case=None, strip_accents=None, tokenizer_class=None)


def settings_disagree(directory):
    edit(directory / "tokenizer_config.json", do_lower_case=False)


def strips_accents(directory):
    vocabulary_only(directory)
    edit(directory / "tokenizer_config.json", strip_accents=True, tokenize_chinese_chars=False, do_lower_case=False)


def keeps_accents(directory):
    edit(directory / "tokenizer_config.json", strip_accents=False)


def _own_tokens(directory):
    """Put two tokens of its own into unused places of the vocabulary."""
    vocabulary_only(directory)
    write_lines(directory, [{"[unused1]": "[E1]", "[unused2]": "[/E1]"}.get(line, line) for line in lines(directory)])


def own_tokens_in_the_map(directory):
    _own_tokens(directory)
    edit(directory / "special_tokens_map.json", additional_special_tokens=["[E1]", "[/E1]"])


def own_tokens_in_the_settings(directory):
    _own_tokens(directory)
    edit(directory / "tokenizer_config.json", additional_special_tokens=["[E1]", "[/E1]"])


def own_tokens_in_both(directory):
    _own_tokens(directory)
    edit(directory / "tokenizer_config.json", additional_special_tokens=["[E1]"])
    token = {"content": "[/E1]", "lstrip": True, "rstrip": False, "normalized": False, "single_word": False}
    edit(directory / "special_tokens_map.json", additional_special_tokens=[token])


def own_tokens_by_role(directory):
    _own_tokens(directory)
    edit(directory / "tokenizer_config.json", extra_special_tokens={"entity_token": "[E1]"})


def added_tokens(directory):
    vocabulary_only(directory)
    edit(directory / "added_tokens.json", **{"<new>": 672, "naïve word": 673, "Königin": 674})


def added_tokens_of_the_vocabulary(directory):
    vocabulary_only(directory)
    edit(directory / "added_tokens.json", **{"king": lines(directory).index("king"), "[E1]": 672})
    edit(directory / "special_tokens_map.json", additional_special_tokens=["[E1]"])


def added_tokens_with_gaps(directory):
    vocabulary_only(directory)
    edit(directory / "added_tokens.json", **{"<far>": 690, "<near>": 680})


def _decoder(directory, **tokens):
    entries = json.loads((directory / "tokenizer_config.json").read_text()).get("added_tokens_decoder", {})
    plain = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": False}
    for index, (content, changes) in enumerate(tokens.items(), 672):
        entries[str(index)] = plain | changes | {"content": content}
    edit(directory / "tokenizer_config.json", added_tokens_decoder=entries)


def token_flags(directory):
    tokens = {
        "<l>": {"lstrip": True},
        "<r>": {"rstrip": True, "special": True},
        "<both>": {"lstrip": True, "rstrip": True},
        "Wörd": {"normalized": True},
        "art": {"single_word": True},
        "two words": {"normalized": True, "single_word": True},
    }
    _decoder(directory, **tokens)


def token_flags_without_json(directory):
    token_flags(directory)
    remove(directory, "tokenizer.json")


def json_lacks_tokens(directory):
    """tokenizer.json is older than the settings, which name tokens that it has not."""
    _decoder(directory, **{"<ent>": {"special": True}})
    edit(directory / "tokenizer_config.json", additional_special_tokens=["<ent>", "<other>"])


def json_has_more_tokens(directory):
    from tokenizers import AddedToken, Tokenizer

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken("<a>", lstrip=True), "naïve"])
    tokenizer.add_special_tokens(["<b>"])
    tokenizer.save(str(directory / "tokenizer.json"))
    edit(directory / "tokenizer_config.json", added_tokens_decoder=None)


def duplicate_lines(directory):
    vocabulary_only(directory)
    write_lines(directory, ["king" if line == "[unused3]" else line for line in lines(directory)])


def duplicate_lines_and_added_token(directory):
    duplicate_lines(directory)
    edit(directory / "added_tokens.json", **{"<new>": 672})


def blank_line_at_the_end(directory):
    vocabulary_only(directory)
    write_lines(directory, [*lines(directory), ""])


def windows_lines(directory):
    vocabulary_only(directory)
    write_lines(directory, lines(directory), end="\r\n")


def byte_order_mark(directory):
    vocabulary_only(directory)
    path = directory / "vocab.txt"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def renamed_tokens(directory):
    vocabulary_only(directory)
    names = {"[MASK]": "<mask>", "[UNK]": "<unk>", "[CLS]": "<s>", "[SEP]": "</s>", "[PAD]": "<pad>"}
    write_lines(directory, [names.get(line, line) for line in lines(directory)])
    edit(directory / "tokenizer_config.json", **{role: ROLES[role] for role in ROLES if role != "bos_token"})


def mask_takes_the_space_before(directory):
    mask = {"__type": "AddedToken", "content": "[MASK]", "lstrip": True, "rstrip": False, "normalized": False}
    vocabulary_only(directory)
    edit(directory / "tokenizer_config.json", mask_token=mask | {"single_word": False, "special": True})


def no_basic_tokenizer(directory):
    vocabulary_only(directory)
    edit(directory / "tokenizer_config.json", do_basic_tokenize=False, never_split=["king"])


def never_splits(directory):
    vocabulary_only(directory)
    edit(directory / "tokenizer_config.json", never_split=["[unused1]", "don't"])


def byte_level(directory):
    """A tokenizer as GPT-2's and RoBERTa's on a BERT."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    remove(directory, "vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
    tokenizer = ByteLevelBPETokenizer(add_prefix_space=True)
    tokenizer.train_from_iterator(
        [" ".join(vocabulary())] * 3,
        vocab_size=500,
        special_tokens=[*dict.fromkeys(ROLES.values())],
        show_progress=False,
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, **ROLES)
    _frame(fast.backend_tokenizer, "<s>", "</s>")
    fast.save_pretrained(directory)


def unigram(directory):
    """A tokenizer as XLM-R's on a BERT: pieces with a mark for the space, and a mask that takes the space before it."""
    from tokenizers import AddedToken, SentencePieceUnigramTokenizer
    from transformers import PreTrainedTokenizerFast

    remove(directory, "vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
    tokenizer = SentencePieceUnigramTokenizer()
    tokenizer.train_from_iterator(
        [" ".join(vocabulary())] * 3,
        vocab_size=300,
        special_tokens=[*dict.fromkeys(ROLES.values())],
        unk_token=ROLES["unk_token"],
        show_progress=False,
    )
    mask = AddedToken("<mask>", lstrip=True, special=True)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, **ROLES | {"mask_token": mask})
    _frame(fast.backend_tokenizer, "<s>", "</s>")
    fast.save_pretrained(directory)


def _frame(tokenizer, first, last):
    from tokenizers.processors import TemplateProcessing

    tokenizer.post_processor = TemplateProcessing(
        single=f"{first}:0 $A:0 {last}:0",
        pair=f"{first}:0 $A:0 {last}:0 $B:1 {last}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (first, last)],
    )


def saved_by_the_slow_form(directory):
    from transformers import BertTokenizer

    tokenizer = BertTokenizer(str(directory / "vocab.txt"), do_lower_case=True)
    tokenizer.add_tokens(["<new>", "Königin"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["[E1]"]})
    remove(directory, "vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
    tokenizer.save_pretrained(directory)


def saved_by_the_fast_form(directory):
    from transformers import AddedToken, BertTokenizerFast

    tokenizer = BertTokenizerFast(str(directory / "vocab.txt"), do_lower_case=True)
    tokenizer.add_tokens([AddedToken("<new>", lstrip=True), "Königin"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["[E1]"]})
    remove(directory, "vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
    tokenizer.save_pretrained(directory)


def without_post_processor(directory):
    """Make the files that `BertWordPieceTokenizer().save()` writes after training."""
    from tokenizers import BertWordPieceTokenizer

    remove(directory, "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")
    tokenizer = BertWordPieceTokenizer()
    tokenizer.train_from_iterator([" ".join(vocabulary())] * 3, vocab_size=400, show_progress=False)
    tokenizer.save(str(directory / "tokenizer.json"))


def truncates_and_pads(directory):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.enable_truncation(8, stride=2, direction="left")
    tokenizer.enable_padding(length=32, direction="left")
    tokenizer.save(str(directory / "tokenizer.json"))


def cuts_the_beginning(directory):
    edit(directory / "tokenizer_config.json", truncation_side="left", padding_side="left", model_max_length=40)


def without_segments(directory):
    edit(directory / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])


def paths_of_another_machine(directory):
    names = {name: f"/root/.cache/{name}" for name in ("tokenizer_file", "name_or_path", "special_tokens_map_file")}
    edit(directory / "tokenizer_config.json", **names)


def other_class(name, *, stated="tokenizer_config.json", alone=False):
    """A form whose tokenizer is said to be of another class."""

    def form(directory):
        if alone:
            vocabulary_only(directory)
        edit(directory / "tokenizer_config.json", tokenizer_class=None)
        edit(directory / stated, tokenizer_class=name)

    form.__name__ = f"{name}_in_{stated.removesuffix('.json')}{'_alone' if alone else ''}"
    return form


def of_transformers_5(directory):
    """Make the files that transformers 5 writes: no special_tokens_map.json, no vocab.txt, and the names of its own."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.add_special_tokens(["[E1]"])
    tokenizer.save(str(directory / "tokenizer.json"))
    remove(directory, "vocab.txt", "special_tokens_map.json")
    changes = {"extra_special_tokens": ["[E1]"], "backend": "tokenizers", "is_local": True}
    edit(directory / "tokenizer_config.json", tokenizer_class="TokenizersBackend", added_tokens_decoder=None, **changes)


FORMS = [
    complete,
    vocabulary_only,
    no_settings,
    json_alone,
    unsaid,
    settings_disagree,
    strips_accents,
    keeps_accents,
    own_tokens_in_the_map,
    own_tokens_in_the_settings,
    own_tokens_in_both,
    own_tokens_by_role,
    added_tokens,
    added_tokens_of_the_vocabulary,
    added_tokens_with_gaps,
    token_flags,
    token_flags_without_json,
    json_lacks_tokens,
    json_has_more_tokens,
    duplicate_lines,
    duplicate_lines_and_added_token,
    blank_line_at_the_end,
    windows_lines,
    byte_order_mark,
    renamed_tokens,
    mask_takes_the_space_before,
    no_basic_tokenizer,
    never_splits,
    byte_level,
    unigram,
    saved_by_the_slow_form,
    saved_by_the_fast_form,
    without_post_processor,
    truncates_and_pads,
    cuts_the_beginning,
    without_segments,
    other_class("DistilBertTokenizer"),
    other_class("DistilBertTokenizerFast", stated="config.json"),
    other_class("ElectraTokenizer", alone=True),
    other_class("LayoutLMTokenizerFast"),
    other_class("MPNetTokenizer", alone=True),
    other_class("PreTrainedTokenizerFast"),
]
"""Forms of which AutoTokenizer of transformers 4 makes a tokenizer."""
ELSEWHERE = [paths_of_another_machine, of_transformers_5]
"""Forms that AutoTokenizer of transformers 4 cannot read; `PreTrainedTokenizerFast` on tokenizer.json is right."""
ROWS = 700
"""Rows of an embedding that all of them fit."""
