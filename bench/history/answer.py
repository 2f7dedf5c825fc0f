"""Answers and speed of one checkout's runtime: `python -P answer.py BUNDLE VARIANT`, its areas in PYTHONPATH.

It uses what bertport.runtime has had since 0.1.0 alone, since the checkout of a release runs it too. Each line of stdin
is `{"texts": [...], "at_once": 8}`; each line of stdout is `{"seconds": 0.1, "words": [...]}`.
"""

from __future__ import annotations

import json
import sys
import time

from bertport.runtime import load


def main() -> None:
    """Answer until stdin ends."""
    bundle, variant = sys.argv[1:]
    model = load(bundle, variant=variant, provider="cpu")
    answer, sys.stdout = sys.stdout, sys.stderr  # what a library prints must not stand between the answers
    for line in sys.stdin:
        request = json.loads(line)
        texts, at_once = request["texts"], request["at_once"]
        began = time.perf_counter()
        if at_once == 1:  # a list of one text gets the answer without a list around it
            answers = [model.fill_mask(text, top_k=1) for text in texts]
        else:
            parts = (texts[first : first + at_once] for first in range(0, len(texts), at_once))
            answers = [best for part in parts for best in model.fill_mask(part, top_k=1)]
        seconds = time.perf_counter() - began
        words = [best[0]["token_str"] for best in answers]
        print(json.dumps({"seconds": seconds, "words": words}), file=answer, flush=True)


main()
