"""Distillation: a quantized graph's biases and LayerNormalization weights trained to answer as fp32 does."""
