"""Export: a trained checkpoint becomes a verified bundle (reading, tracing, graph passes, validation), and back.

Importing this loads neither torch, transformers, optimum nor onnx; `export` and `restore` do when they are called.
"""

from bertport.export.exporter import export
from bertport.export.progress import Event
from bertport.export.restorer import restore

__all__ = ["Event", "export", "restore"]
