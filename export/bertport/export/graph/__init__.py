"""Graphs: traced from PyTorch, passed through the passes, and written."""
