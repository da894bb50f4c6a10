"""Checkpoints as DeepSeek releases them → GGUF files, in one pass and without torch."""

from converters.checking.audit import Audit, TensorAudit, audit
from converters.checking.preview import PartPreview, Preview, TypeUse, preview
from converters.convert import ConvertOptions, ConvertResult, Progress, convert
from converters.errors import ConvertError, OptionError
from converters.metadata.chat_template import known_template
from converters.source.folders import followed
from converters.source.shards import Shards
from converters.types.fitting import FitLine, Fitted
from converters.types.recipe import KEEP, TYPE_NAMES
from converters.writing.freeing import Freeable, freeable

__all__ = [
    "KEEP",
    "TYPE_NAMES",
    "Audit",
    "ConvertError",
    "ConvertOptions",
    "ConvertResult",
    "FitLine",
    "Fitted",
    "Freeable",
    "OptionError",
    "PartPreview",
    "Preview",
    "Progress",
    "Shards",
    "TensorAudit",
    "TypeUse",
    "audit",
    "convert",
    "followed",
    "freeable",
    "known_template",
    "preview",
]
