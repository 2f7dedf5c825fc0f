"""HTTP: bundles behind the Hub's inference format and the Open Inference Protocol, with the runtime's own batching."""
