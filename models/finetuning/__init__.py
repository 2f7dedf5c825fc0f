"""Fine-tuning of an encoder on labelled data: tasks, data, training, choice of settings, and scores."""
