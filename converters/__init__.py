"""Checkpoints as DeepSeek releases them → GGUF files, in one pass and without torch."""

from converters.checking.audit import Audit, TensorAudit, audit
from converters.checking.preview import PartPreview, Preview, TypeUse, preview
from converters.convert import ConvertOptions, ConvertResult, Progress, convert
from converters.errors import ConvertError, OptionError
from converters.metadata.chat_template import known_template
from converters.source.folders import followed
from converters.types.fitting import FitLine, Fitted
from converters.types.recipe import KEEP, TYPE_NAMES

__all__ = [
    "KEEP",
    "TYPE_NAMES",
    "Audit",
    "ConvertError",
    "ConvertOptions",
    "ConvertResult",
    "FitLine",
    "Fitted",
    "OptionError",
    "PartPreview",
    "Preview",
    "Progress",
    "TensorAudit",
    "TypeUse",
    "audit",
    "convert",
    "followed",
    "known_template",
    "preview",
]
