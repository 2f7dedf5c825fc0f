"""Add INT8 variants to a bundle, and measure what each one costs."""
