"""Turn a checkpoint into a verified bundle: reading, tracing through Optimum, graph passes, validation."""
