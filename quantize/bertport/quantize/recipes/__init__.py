"""Recipes: one table, and the functions that make each one's graph."""
