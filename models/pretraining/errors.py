"""The error that the scripts of the recipe show as one sentence."""


class RecipeError(ValueError):
    """What was asked of the recipe cannot be done with what was found; the message says what to do."""
