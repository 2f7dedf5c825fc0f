"""Observability: request context, metrics, tracing and logs."""
