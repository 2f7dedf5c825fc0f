"""Holding a budget, on made-up layers: held-out text decides, and the search aims lower until it agrees."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from bertport.measure.budget import Budget
from bertport.quantize.deadline import Deadline, TimeUpError
from bertport.quantize.search import mixed_precision
from bertport.quantize.search.mixed_precision import BrokenBudgetError, meet_budget
from bertport.quantize.search.sensitivity import rank
from bertport.runtime.errors import ValidationError
from bertport.runtime.providers.cpu import INSTRUCTION_SETS, InstructionSet
from tests.made_up_figures import fidelity
from tests.made_up_figures import kl as kl_of

COSTS = {"a": 0.4, "b": 0.2, "c": 0.2, "d": 0.1, "e": 0.06, "f": 0.04}
HELD_OUT, SEARCHED = SimpleNamespace(tokens=300), SimpleNamespace(tokens=100)
FLOOR = 0.1
"""KL that no layer's higher precision takes away."""


@dataclass(frozen=True)
class Asked:
    high_precision_layers: frozenset = frozenset()
    float_fallback: bool = False
    instruction_set: InstructionSet | None = None


class World:
    """Stand-in for graphs and texts: KL on held-out text is `harder` times what it is on the other."""

    def __init__(self, harder, deadline=None):
        self.harder, self.held_out = harder, []
        self.bundle = self.calibration = None
        self.evaluation = HELD_OUT
        self.deadline = deadline or Deadline()

    def progress(self, *_):
        pass

    @staticmethod
    def make(recipe, source):  # noqa: ARG004 — the signature of an Evaluator
        return source

    def accuracy(self, recipe, source, samples, *, stability=0):  # noqa: ARG002 — the signature of an Evaluator
        kl = FLOOR + sum(cost for name, cost in COSTS.items() if name not in source.high_precision_layers)
        if samples == self.evaluation:
            kl *= self.harder
            self.held_out.append(source.high_precision_layers)
        # NSP's KL has nothing to do with the layers.
        return fidelity(mlm={"kl": kl}, nsp={"kl": 3.0}, hidden=None)

    def on_labelled(self, recipe, source):  # noqa: ARG002 — the signature of an Evaluator
        return None


@pytest.fixture(autouse=True)
def _made_up(monkeypatch):
    def table(evaluator, recipe, source, *, head):  # noqa: ARG001 — the signature of `rank_layers`
        measure = lambda higher: evaluator.accuracy(recipe, Asked(higher), SEARCHED)  # noqa: E731
        assert head == "mlm"
        shapes = dict.fromkeys(COSTS, (4, 4))
        ones = dict.fromkeys(COSTS, 1.0)
        return rank(shapes, ones, measure, text={}, machine="here", progress=evaluator.progress)

    monkeypatch.setattr(mixed_precision, "rank_layers", table)
    monkeypatch.setattr(mixed_precision, "read_evaluation", lambda *_, **__: SEARCHED)
    monkeypatch.setattr(mixed_precision, "_names", lambda *_: frozenset(COSTS))


RECIPE = SimpleNamespace(name="made-up", emitter=object(), int16_activations=False, by_instruction_set=True)
HALFWAY = SimpleNamespace(name="made-up", emitter=object(), int16_activations=True, by_instruction_set=True)


def held(harder, bound, recipe=RECIPE):
    world = World(harder)
    return meet_budget(world, recipe, Asked(), Budget(bounds={"kl": bound})), world


def test_what_holds_plainly_is_not_searched():
    solution, world = held(1, 1.2)
    assert solution.source.high_precision_layers == frozenset()
    assert solution.layers is None
    assert world.held_out == [frozenset()]


@pytest.mark.parametrize("harder", [0.5, 1, 1.3, 3])
def test_the_aim_follows_from_the_breach_whatever_the_text_of_the_search(harder):
    """Where both texts tell the same of the layers, one search suffices, however hard either is."""
    solution, world = held(harder, 0.75 * harder)
    assert solution.source.high_precision_layers == {"a"}
    assert len(world.held_out) == 2


def test_where_held_out_text_disagrees_the_search_aims_lower(monkeypatch):
    """Layer `a` does harm on the text of the search alone."""
    before = World.accuracy

    def accuracy(self, recipe, source, samples, *, stability=0):
        if samples == self.evaluation and "a" in source.high_precision_layers:
            source = Asked(source.high_precision_layers - {"a"})
        return before(self, recipe, source, samples, stability=stability)

    monkeypatch.setattr(World, "accuracy", accuracy)
    solution, world = held(1, 0.85)
    assert kl_of(solution.accuracy) <= 0.85
    assert len(world.held_out) > 2
    assert len(solution.source.high_precision_layers) < len(COSTS)


def test_what_only_all_layers_hold_is_found():
    solution, _ = held(1, FLOOR * 1.01)
    assert solution.source.high_precision_layers == set(COSTS)


def test_what_nothing_holds_is_refused():
    with pytest.raises(ValidationError, match=r"KL divergence is 0\.10000, at most 0\.05000 was asked"):
        held(1, FLOOR / 2)


def test_a_head_that_the_text_of_the_search_tells_nothing_of_comes_nearer_by_the_hidden_states(monkeypatch):
    """Lines of one sentence each make no pairs: NSP is measured on held-out text alone."""
    monkeypatch.setattr(mixed_precision, "HIDDEN", "mlm")
    before = World.accuracy

    def accuracy(self, recipe, source, samples, *, stability=0):
        kl = kl_of(before(self, recipe, source, samples, stability=stability))
        return fidelity(mlm={"kl": kl}, nsp={"flips": kl / 100} if samples == self.evaluation else None)

    monkeypatch.setattr(World, "accuracy", accuracy)
    solution = meet_budget(World(1), RECIPE, Asked(), Budget(bounds={"nsp": 0.0095}))
    assert solution.source.high_precision_layers == {"a"}  # 0.75 of KL 1.1 may stay


def test_what_16_bits_do_not_hold_float32_does(monkeypatch):
    """In 16 bits, the first step, a layer keeps half of what it costs."""
    before = World.accuracy

    def accuracy(self, recipe, source, samples, *, stability=0):
        measured = before(self, recipe, source, samples, stability=stability)
        if not source.float_fallback:
            half = sum(COSTS[name] for name in source.high_precision_layers) / 2
            measured = fidelity(mlm={"kl": kl_of(measured) + half * (self.harder if samples == self.evaluation else 1)})
        return measured

    monkeypatch.setattr(World, "accuracy", accuracy)
    monkeypatch.setattr(mixed_precision, "saturates", lambda _: False)
    solution, _ = held(1, 0.7, HALFWAY)
    assert not solution.source.float_fallback
    solution, world = held(1, 0.5, HALFWAY)
    assert solution.source.float_fallback
    assert solution.source.high_precision_layers < set(COSTS)
    assert frozenset(COSTS) in world.held_out, "all layers in 16 bits came first"


@pytest.mark.parametrize(
    ("here", "isa", "own", "levels"),
    [
        ("avx512_vnni", "avx512_vnni", True, [False, True]),
        ("avx512_vnni", "avx2", True, [True]),  # made here for CPUs where two products in 8 bits are no faster than one
        ("avx512_vnni", None, True, [True]),
        ("avx512_vnni", "avx2", False, [False, True]),  # of a recipe that is the same for all
        ("avx2", "avx512_vnni", False, [True]),
    ],
)
def test_16_bits_come_first_where_they_are_faster_on_the_cpus_that_it_is_made_for(monkeypatch, here, isa, own, levels):
    monkeypatch.setattr(mixed_precision, "cpu", lambda: SimpleNamespace(instruction_set=here))
    recipe = SimpleNamespace(name="made-up", int16_activations=True, by_instruction_set=own)
    made = mixed_precision.levels_of(recipe, Asked(instruction_set=INSTRUCTION_SETS.get(isa)))
    assert [level.float_fallback for level in made] == levels


def test_an_aim_beyond_reach_does_not_take_all_layers(monkeypatch):
    """The text of the search has a floor under which nothing goes, held-out text has none."""
    before = World.accuracy

    def accuracy(self, recipe, source, samples, *, stability=0):
        measured = before(self, recipe, source, samples, stability=stability)
        if samples == self.evaluation:
            measured = fidelity(mlm={"kl": kl_of(measured) - FLOOR})
        return measured

    monkeypatch.setattr(World, "accuracy", accuracy)
    solution, _ = held(1, 0.07)
    assert kl_of(solution.accuracy) <= 0.07
    assert len(solution.source.high_precision_layers) < len(COSTS)


class Labelled(World):
    """A world with labelled data, on which a metric drops with the square root of KL."""

    def __init__(self, harder=1, head="mlm"):
        super().__init__(harder)
        self.head, self.on_data = head, []

    def on_labelled(self, recipe, source):
        self.on_data.append(source.high_precision_layers)
        drop = kl_of(self.accuracy(recipe, source, SEARCHED)) ** 0.5 / 10
        broken = (f"the drop of accuracy is {drop:.4f}",) if drop > 0.085 else ()
        return SimpleNamespace(broken=broken, shares={self.head: (0.085 / drop) ** 2} if broken else {}, drop=drop)


@pytest.mark.parametrize("head", ["mlm", "no head with figures"])
def test_a_search_serves_a_bound_on_labelled_data(head, monkeypatch):
    if head != "mlm":  # it goes by the hidden states then, which are all that is known
        monkeypatch.setattr(mixed_precision, "HIDDEN", "mlm")
    world = Labelled(head=head)
    solution = meet_budget(world, RECIPE, Asked(), Budget(bounds={}, drops={"accuracy": 0.085}))
    assert solution.labelled.drop <= 0.085
    assert solution.source.high_precision_layers == {"a"}  # 0.72 of KL 1.1 may stay
    assert world.on_data == [frozenset(), {"a"}]
    assert solution.search["combinations_on_held_out_text"] == 1


def test_both_bounds_have_to_hold_and_labelled_data_is_read_last():
    world = Labelled()
    budget = Budget(bounds={"kl": 0.5}, drops={"accuracy": 0.085})
    solution = meet_budget(world, RECIPE, Asked(), budget)
    assert kl_of(solution.accuracy) <= 0.5
    assert solution.labelled.drop <= 0.085
    assert len(world.on_data) == 2  # the plain recipe, and what held-out text allows
    assert len(world.held_out) >= 2


def test_what_no_layer_mends_on_labelled_data_is_refused():
    world = Labelled()
    world.on_labelled = lambda *_: SimpleNamespace(broken=("the drop of accuracy is 0.5",), shares={"mlm": 0.01})
    with pytest.raises(BrokenBudgetError, match=r"breaks the accuracy budget accuracy\.drop=0\.1 \(the drop") as error:
        meet_budget(world, RECIPE, Asked(), Budget(bounds={}, drops={"accuracy": 0.1}))
    assert error.value.labelled.broken
    whole = SimpleNamespace(name="whole", emitter=None)
    with pytest.raises(BrokenBudgetError, match="choose another recipe"):
        meet_budget(world, whole, Asked(), Budget(bounds={}, drops={"accuracy": 0.1}))


LARGER = SimpleNamespace(tokens=900)


class Noisy(World):
    """Held-out text of which a larger part tells another KL, by a factor; figures made up count for one sample."""

    def __init__(self, factor, larger=LARGER, deadline=None):
        super().__init__(1, deadline)
        self.factor, self.larger, self.asked, self.on_more = factor, larger, [], []

    def enlarged(self, times):
        self.asked.append(times)
        world = Noisy(self.factor, deadline=self.deadline)
        world.harder, world.evaluation, world.held_out = self.factor, self.larger, self.on_more
        return world


def decided(world, recipe=RECIPE, *, decides=True):
    return meet_budget(world, recipe, Asked(), Budget(bounds={"kl": 1.0}), decides=decides)


@pytest.mark.parametrize("recipe", [RECIPE, SimpleNamespace(name="whole", emitter=None)])
def test_what_breaks_its_budget_within_the_noise_is_measured_on_more_before_a_search(recipe):
    world = Noisy(0.9)
    solution = decided(world, recipe)
    assert solution.source.high_precision_layers == frozenset()
    assert solution.layers is solution.search is None
    assert (kl_of(solution.accuracy), solution.evaluation) == (pytest.approx(0.99), LARGER)
    assert world.asked == [{"mlm": mixed_precision.MORE}]
    assert world.held_out == world.on_more == [frozenset()]


@pytest.mark.parametrize(
    ("world", "measured"),
    [
        (Noisy(1.2), 1),  # breaks it on more as well
        (Noisy(0.9, HELD_OUT), 0),  # there is no more text
        (Noisy(0.9, deadline=Deadline(0.0)), 0),  # no time is left
    ],
)
def test_where_more_samples_do_not_help_a_search_follows(world, measured):
    world.deadline.check = lambda: None
    solution = decided(world)
    assert solution.source.high_precision_layers
    assert solution.search
    assert solution.evaluation == HELD_OUT
    assert len(world.on_more) == measured


def test_bounds_that_were_asked_for_are_judged_on_the_samples_that_were_asked_for():
    world = Noisy(0.9)
    assert decided(world, decides=False).search
    assert not world.asked


def test_a_breach_beyond_noise_is_searched_at_once(monkeypatch):
    monkeypatch.setattr(Budget, "undecided", lambda *_: {})
    world = Noisy(0.9)
    assert decided(world).search
    assert not world.asked


class Expiring(Deadline):
    """A limit that is reached after some measurements."""

    def __init__(self, measurements):
        super().__init__(600)
        self.left = measurements

    def check(self):
        self.left -= 1
        if self.left < 0:
            raise TimeUpError


def cut(measurements, bound, recipe=RECIPE):
    world = World(1, Expiring(measurements))
    before = world.accuracy

    def accuracy(*given, **options):
        world.deadline.check()
        return before(*given, **options)

    world.accuracy = accuracy
    return meet_budget(world, recipe, Asked(), Budget(bounds={"kl": bound}))


@pytest.mark.parametrize("measurements", [3, 5, 11])
def test_when_the_time_is_up_what_holds_is_taken(measurements):
    solution = cut(measurements, 0.75)
    assert solution.source.high_precision_layers == set(COSTS)
    assert solution.search["cut"] is True
    assert solution.search["time_limit_seconds"] == 600


def test_a_search_within_its_time_finds_what_it_finds_without_a_limit():
    solution = cut(1000, 0.75)
    assert solution.source.high_precision_layers == {"a"}
    assert solution.search["cut"] is False
    assert held(1, 0.75)[0].search["combinations_on_held_out_text"] == 1


def test_when_the_time_is_up_and_nothing_holds_the_nearest_is_told():
    with pytest.raises(ValidationError, match=r"KL divergence is 1\.10.*the time limit of 10m passed before"):
        cut(1, 0.75)


def test_with_a_limit_what_nothing_can_hold_is_told_at_once():
    with pytest.raises(ValidationError, match="with all layers in higher precision"):
        cut(3, FLOOR / 2)
