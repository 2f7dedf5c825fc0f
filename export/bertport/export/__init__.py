"""Export: a trained checkpoint becomes a verified bundle (reading, tracing, graph passes, validation).

Importing this loads neither torch, transformers, optimum nor onnx; `export` does when it is called.
"""

from bertport.export.exporter import export
from bertport.export.progress import Event

__all__ = ["Event", "export"]
