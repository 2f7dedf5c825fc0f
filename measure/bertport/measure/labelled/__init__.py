"""Measure on labelled data: read it, predict it, and say how good the predictions are and how sure that is."""
