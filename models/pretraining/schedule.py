"""Training schedule, without state: tokens, sequence lengths and learning rate by step."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Warm-up, linear decay, and the sequence lengths; the defaults suit tens of millions of tokens on a CPU."""

    tokens: int
    """Tokens to train on in all."""
    tokens_per_batch: int = 2048
    """Tokens in one optimizer step."""
    peak_rate: float = 5e-4
    """Learning rate at the end of the warm-up."""
    warmup: float = 0.04
    """Share of the steps in which the rate rises from 0 to its peak, linearly; it then falls linearly to 0."""
    length: int = 128
    """Sequence length of the first nine tenths of the steps, in tokens."""
    long_length: int = 512
    """Sequence length of the last tenth."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay, on matrices only."""
    betas: tuple[float, float] = (0.9, 0.98)
    """AdamW's betas. BERT's second is 0.999; a run of a few thousand steps forgets its first gradients sooner."""
    epsilon: float = 1e-6
    """AdamW's epsilon, BERT's own."""
    clip: float = 1.0
    """Largest norm of the gradient, BERT's own."""

    @property
    def steps(self) -> int:
        """The number of optimizer steps."""
        return max(1, self.tokens // self.tokens_per_batch)

    def place(self, step: int, *, first: float, now: float) -> int:  # noqa: ARG002 — what other schedules go by
        """Return the place in the schedule, from 0 to `steps`.

        Args:
            step: Steps taken.
            first: When the first one began, in seconds after the program's start.
            now: The time, likewise.
        """
        return step

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        return linear_rate(step, steps=self.steps, peak=self.peak_rate, warmup=self.warmup)

    def length_at(self, step: int) -> int:
        """Return the sequence length of a step, counted from 0."""
        return self.length if step < self.steps * 9 // 10 else self.long_length


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedSchedule(Schedule):
    """The same by the wall clock, which always ends in time; how many tokens it takes is seen at its end."""

    tokens: int = 0
    seconds: float
    """Seconds after the program's start in which steps begin."""

    PARTS: ClassVar[int] = 10_000
    """Parts of the time, which stand for steps."""

    @property
    def steps(self) -> int:
        """The number of parts."""
        return self.PARTS

    def place(self, step: int, *, first: float, now: float) -> int:  # noqa: ARG002 — its number says nothing of the time
        """Return the part of the time that has come, from the first step on."""
        return int((now - first) / (self.seconds - first) * self.PARTS) if now < self.seconds else self.PARTS


def linear_rate(step: int, *, steps: int, peak: float, warmup: float) -> float:
    """Return the learning rate of a step, counted from 0: a linear rise over a share `warmup`, then a linear fall."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return peak * (step + 1) / rising
    return peak * max(0.0, (steps - step) / max(1, steps - rising))
