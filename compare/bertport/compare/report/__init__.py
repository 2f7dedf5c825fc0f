"""The report: one document, and the pages that are drawn from it."""
