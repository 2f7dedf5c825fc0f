"""The endpoints, the wire formats of tasks, and the page."""
