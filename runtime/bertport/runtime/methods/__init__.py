"""Methods of a model: a file for each kind of head, each method a task with its parameters."""
