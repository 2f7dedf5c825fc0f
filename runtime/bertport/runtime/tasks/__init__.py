"""Tasks: one table, and the post-processing of each."""
