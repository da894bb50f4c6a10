"""The command line as people see it: options, messages, tables."""
