"""Answer from a bundle: fill-mask, next-sentence and features through ONNX Runtime, without torch."""
