"""From a plan to a file: every name, shape and offset first, then tile by tile, resumable."""
