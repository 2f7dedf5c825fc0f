"""Graph passes on `onnx_ir`, one per file: each changes a model and returns it with whether it did."""
