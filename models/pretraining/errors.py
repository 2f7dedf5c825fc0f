"""The error that the scripts of the recipe show as one sentence."""


class RecipeError(ValueError):
    """A request that the recipe cannot carry out with what was found; the message says what to do."""
