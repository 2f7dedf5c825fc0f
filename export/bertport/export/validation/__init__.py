"""Validation: every output and every token against PyTorch and transformers."""
