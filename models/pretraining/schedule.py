"""Training schedule, without state: tokens, sequence lengths and learning rate by step."""

from dataclasses import dataclass


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

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        return linear_rate(step, steps=self.steps, peak=self.peak_rate, warmup=self.warmup)

    def length_at(self, step: int) -> int:
        """Return the sequence length of a step, counted from 0."""
        return self.length if step < self.steps * 9 // 10 else self.long_length


def linear_rate(step: int, *, steps: int, peak: float, warmup: float) -> float:
    """Return the learning rate of a step, counted from 0: a linear rise over a share `warmup`, then a linear fall."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return peak * (step + 1) / rising
    return peak * max(0.0, (steps - step) / max(1, steps - rising))
