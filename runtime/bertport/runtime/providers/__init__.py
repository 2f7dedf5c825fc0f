"""Execution providers: one table, their options, and the checks that the one asked for runs."""
