"""Graphs: fusion, rewriting and storage."""
