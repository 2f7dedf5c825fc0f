"""The search on made-up layers whose increases of KL add up, so that the right answer can be worked out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertport.quantize.card import bars
from bertport.quantize.search.sensitivity import Layers, kl_increase, rank, search
from tests.made_up_figures import fidelity
from tests.made_up_figures import kl as kl_of
from tests.quantize.conftest import silent


def world(costs):
    """A measure under which each layer in 8 bits costs its own KL."""

    def measure(higher):
        kl = sum(cost for name, cost in costs.items() if name not in higher)
        return fidelity(mlm={"kl": kl}, nsp=None, hidden=None)

    return measure


def table(costs, saved):
    shapes = dict.fromkeys(costs, (4, 4))
    return rank(shapes, saved, world(costs), text={}, machine="here", progress=silent)


def test_layers_are_ranked_by_kl_per_millisecond():
    layers = table({"a": 0.3, "b": 0.2, "c": 0.1}, {"a": 3.0, "b": 1.0, "c": 2.0})
    assert [layer.name for layer in layers.rows] == ["b", "a", "c"]
    assert layers.kl_increase == pytest.approx(0.6)
    assert Layers.from_json(layers.to_json()) == layers


def test_a_layer_is_charged_for_itself_and_not_for_what_it_makes_of_others():
    """Of two layers whose errors cancel, each costs what it costs alone."""

    def measure(higher):
        kl = sum(0.25 for name in "ab" if name not in higher) - (0.5 if not higher & {"a", "b"} else 0)
        kl += 0.125 * ("c" not in higher)
        return fidelity(mlm={"kl": kl}, nsp=None, hidden=None)

    layers = rank(
        dict.fromkeys("abc", (4, 4)), dict.fromkeys("abc", 1.0), measure, text={}, machine="here", progress=silent
    )
    assert [(layer.name, layer.kl_increase) for layer in layers.rows] == [("a", 0.25), ("b", 0.25), ("c", 0.125)]
    assert layers.kl_increase == 0.125


def test_a_layer_that_8_bits_slow_down_comes_first():
    layers = table({"a": 0.3, "b": 0.01}, {"a": 0.1, "b": -1.0})
    assert layers.rows[0].name == "b"


costs = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(1e-4, 1), min_size=1)


@given(costs, st.floats(0, 4))
def test_what_is_found_is_enough(chosen, bound):
    measure = world(chosen)
    if kl_increase(measure(frozenset())) <= bound:
        return  # the plain recipe is enough: there is no search
    enough = lambda measured: kl_increase(measured) <= bound  # noqa: E731
    solution = search(table(chosen, dict.fromkeys(chosen, 1.0)), enough, measure, progress=silent)
    assert solution.held  # all in higher precision costs nothing here
    assert kl_increase(measure(solution.higher)) <= bound
    # Each layer kept is needed: these few are all tried again.
    if len(solution.higher) <= 6:
        assert all(
            len(solution.higher) == 1 or kl_increase(measure(solution.higher - {name})) > bound
            for name in solution.higher
        )


def test_a_search_that_finds_nothing_says_how_near_it_came():
    measure = lambda higher: world({"a": 1.0})(frozenset())  # noqa: E731, ARG005 — nothing helps
    solution = search(
        table({"a": 1.0}, {"a": 1.0}), lambda measured: kl_increase(measured) <= 0.5, measure, progress=silent
    )
    assert not solution.held
    assert kl_of(solution.nearest) == 1.0


def test_kl_increase_is_that_of_the_head_asked_for_or_of_the_first_that_there_is():
    pairs, hidden = {"kl": 0.5}, {"cosine": 0.75}
    both = fidelity(mlm={"kl": 0.25}, nsp=pairs, hidden=hidden)
    assert kl_increase(both) == kl_increase(both, "mlm") == 0.25
    assert kl_increase(both, "nsp") == 0.5
    assert kl_increase(both, "hidden") == 0.25
    assert kl_increase(fidelity(mlm=None, nsp=pairs, hidden=None)) == 0.5
    assert kl_increase(fidelity(mlm=None, nsp=None, hidden=hidden)) == 0.25


def test_the_plot_is_well_formed_and_shows_every_layer():
    from xml.etree import ElementTree as ET

    layers = table({"a<b": 0.3, "c": -0.01}, {"a<b": 1.0, "c": 1.0})
    plot = ET.fromstring(bars(layers, ["c"]))  # noqa: S314 — our own
    texts = [element.text or "" for element in plot.iter() if element.tag.endswith("text")]
    assert {"a<b", "c"} <= set(texts)
