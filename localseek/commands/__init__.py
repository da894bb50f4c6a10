"""The verbs, one module each: EXAMPLES, `configure(parser)` and `run(arguments) -> exit status`.

A module is imported only when its verb is called; heavy imports stand inside its functions.
"""
