"""A model repository for Triton Inference Server: the graph of a bundle, and what names its tensors."""
