"""Checkpoints as DeepSeek releases them → GGUF files, in one pass and without torch."""

from converters.audit import Audit, TensorAudit, audit
from converters.convert import ConvertOptions, ConvertResult, Progress, convert
from converters.errors import ConvertError
from converters.fitting import FitLine, Fitted
from converters.preview import PartPreview, Preview, TypeUse, preview
from converters.recipe import KEEP, TYPE_NAMES

__all__ = [
    "KEEP",
    "Audit",
    "TYPE_NAMES",
    "ConvertError",
    "ConvertOptions",
    "ConvertResult",
    "FitLine",
    "Fitted",
    "PartPreview",
    "Preview",
    "Progress",
    "TypeUse",
    "TensorAudit",
    "audit",
    "convert",
    "preview",
]
