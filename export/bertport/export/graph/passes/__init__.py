"""Graph passes, one per file: each is called with a model, changes it, and gives it back with whether it changed."""
