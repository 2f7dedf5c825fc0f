"""The engine: served models, their queues and their workers."""
