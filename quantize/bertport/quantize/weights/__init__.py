"""Weights: rounding to 8 bits, GPTQ and outliers."""
