"""Text to token ids and back."""

__all__: list[str] = []
