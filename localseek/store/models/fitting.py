"""Whether a listed model fits on a machine, from the facts that are kept of it.

Takes facts, a machine and load options, gives a `Fit`. Opens the file only where the facts do not
tell: where single tensors are to be moved, or another file is to draft.
"""

from pathlib import Path

from localseek.gguf.info import read_info
from localseek.options import LoadOptions
from localseek.placing.condensed import from_plain
from localseek.placing.fits import Fit, fit, fit_shape
from localseek.store.models.facts import Facts
from localseek.system.machine import Machine


def fit_of(facts: Facts, machine: Machine, options: LoadOptions) -> Fit:
    """Tell whether a model fits, and why; one that cannot answer does not."""
    if facts.shape is None:
        return Fit(False, facts.obstacle)
    if not (options.fixed.place or options.draft_model):
        try:
            shape = from_plain(facts.shape)
        except (KeyError, TypeError, ValueError):  # kept by another version
            pass
        else:
            return fit_shape(shape, facts.drafts and options.mtp != "off", machine, options)
    return fit(read_info(Path(facts.files[0])), machine, options)
