"""What of a model goes where on a machine: sizes, devices, the decision and its reasons."""
