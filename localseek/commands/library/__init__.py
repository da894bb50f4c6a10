"""Getting, finding and keeping models: what stands behind `pull`, `models` and `completion`."""
