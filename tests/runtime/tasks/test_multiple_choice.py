"""multiple-choice: what is read, and the softmax over the choices' logits."""

from __future__ import annotations

import numpy as np
import pytest

from bertport.runtime.errors import InputTextError
from bertport.runtime.tasks.inputs import MOST_ROWS
from bertport.runtime.tasks.multiple_choice import read


@pytest.mark.parametrize("name", ["prompt", "text"])
def test_rows_and_the_answer_of_their_logits(name):
    import torch

    parts = read({name: "p", "choices": ["a", "b", "a"]})
    assert parts.texts == (("p", "a"), ("p", "b"), ("p", "a"))
    logits = np.array([-1.5, 3.0, 2.0], np.float32)
    answer = parts.combine(list(logits[:, None]))
    assert answer == {
        "label": 1,
        "choice": "b",
        "score": answer["probabilities"][1],
        "probabilities": pytest.approx(torch.from_numpy(logits).softmax(0).tolist(), abs=1e-7),
    }


def test_one_choice_and_equal_ones():
    assert read({"prompt": "p", "choices": ["a"]}).combine([np.float32([-9])])["probabilities"] == [1.0]
    assert read({"prompt": "p", "choices": ["a", "a"]}).combine([np.float32([7])] * 2)["label"] == 0


@pytest.mark.parametrize(
    "value",
    ["a", None, ["a", "b"], {}, {"prompt": "a"}, {"choices": ["a"]}, {"prompt": 1, "choices": ["a"]},
     {"prompt": "a", "choices": ["a"], "more": 1}, {"prompt": "a", "text": "b", "choices": ["a"]}],
)  # fmt: skip
def test_what_is_no_question(value):
    with pytest.raises(InputTextError, match=r"multiple-choice takes .* with a text for a prompt, not "):
        read(value)


@pytest.mark.parametrize("choices", [[], (), "ab", None, 3, {"a": 1}, [1], ["a", None], ["a"] * (MOST_ROWS + 1)])
def test_choices_that_are_none(choices):
    with pytest.raises(InputTextError, match="choices is a list of"):
        read({"prompt": "a", "choices": choices})
