"""Quality: how far a model is from its reference, per head."""
