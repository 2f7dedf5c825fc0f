"""transformers' `pipeline`, call for call, over a bundle."""
