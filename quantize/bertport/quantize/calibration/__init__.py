"""Calibration: activations observed on text, and the ranges that follow."""
