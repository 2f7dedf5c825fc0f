"""Measure variants side by side: quality per head, speed, and how sure the figures are."""
