"""What an answer must look like: JSON schemas and GBNF grammars, read and checked."""

from localseek.grammar.gbnf import check
from localseek.grammar.schema import grammar_of, grammar_of_value

__all__ = ["check", "grammar_of", "grammar_of_value"]
