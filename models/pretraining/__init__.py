"""Pretraining of the embedded default model: corpus, objective, training and held-out evaluation."""
