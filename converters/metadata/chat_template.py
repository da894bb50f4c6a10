"""A chat template for V3.2 and V4, whose releases give theirs as Python and not as jinja.

Takes the GGUF architecture and the tokenizer's metadata; gives more metadata and what the user
should know. Ours covers plain chat: system texts first, past answers as they are given (without
their reasoning), a next answer with `<think>` or without, V4's reasoning effort. It has no tool
calls. The file says that it is ours.
"""

from __future__ import annotations

import json

from converters.layout import Described, Metadata, Value

_ARCHITECTURES = ("deepseek32", "deepseek4")
_TOKENS = ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>", "<｜end▁of▁sentence｜>")

# What V4's encoders put before everything else for a reasoning effort; the texts are the model's
# own (encoding_dsv4.py). The revision of July 2026 has another text for the highest.
ABSOLUTE = (
    "Reasoning Effort: Absolute maximum with no shortcuts permitted.\n"
    "You MUST be very thorough in your thinking and comprehensively decompose the problem to "
    "resolve the root cause, rigorously stress-testing your logic against all potential "
    "paths, edge cases, and adversarial scenarios.\n"
    "Explicitly write out your entire deliberation process, documenting every intermediate "
    "step, considered alternative, and rejected hypothesis to ensure absolutely no "
    "assumption is left unchecked.\n\n"
)
BEYOND = (
    "Reasoning Effort: Beyond maximum — exhaustive, relentless, and uncompromising.\n"
    "You MUST reason with the utmost depth and rigor, leaving absolutely nothing to chance: "
    "exhaustively decompose the problem into its most fundamental components, trace every "
    "causal chain to its root, and resolve the underlying cause rather than any surface "
    "symptom.\n"
    "Do not stop reasoning until you have independently verified the solution from multiple "
    "angles and are certain that no assumption remains unchecked and no error remains "
    "undiscovered.\n\n"
)
EFFORTS = {"max": ABSOLUTE}
EFFORTS_0731 = {"high": ABSOLUTE, "max": BEYOND}

_BEGIN = """\
{%- set asked = enable_thinking is defined and enable_thinking -%}
{%- set think = thinking if thinking is defined else asked -%}
{{- bos_token -}}
"""
_CHAT = """\
{%- for message in messages if message['role'] == 'system' -%}
  {{- ('' if loop.first else '\\n\\n') + message['content'] -}}
{%- endfor -%}
{%- for message in messages -%}
  {%- if message['role'] == 'user' -%}
    {{- '<｜User｜>' + message['content'] -}}
  {%- elif message['role'] == 'assistant' -%}
    {{- '<｜Assistant｜></think>' + message['content'] + '<｜end▁of▁sentence｜>' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<｜Assistant｜>' + ('<think>' if think else '</think>') -}}
{%- endif -%}
"""


def known_template(architecture: str, name: str) -> str:
    """Return our template for a model of an architecture, "" where we have none."""
    if architecture not in _ARCHITECTURES:
        return ""
    efforts = EFFORTS_0731 if "0731" in name else EFFORTS if architecture == "deepseek4" else {}
    cases = [
        f"{{%- if think and reasoning_effort is defined and reasoning_effort == {level!r} -%}}\n"
        f"  {{{{- {json.dumps(text, ensure_ascii=False)} -}}}}\n{{%- endif -%}}\n"
        for level, text in efforts.items()
    ]
    return _BEGIN + "".join(cases) + _CHAT


def missing_template(architecture: str, name: str, tokenizer: Metadata) -> Described:
    """Give the template that a V3.2 or V4 checkpoint lacks; nothing for all others."""
    if architecture not in _ARCHITECTURES or "tokenizer.chat_template" in tokenizer:
        return Described({})
    tokens = tokenizer.get("tokenizer.ggml.tokens", ())
    lacking = [text for text in _TOKENS if not isinstance(tokens, tuple) or text not in tokens]
    if lacking:
        return Described(
            {},
            (f"the checkpoint has no chat template, nor the token {lacking[0]}: none is written",),
        )
    values: dict[str, Value] = {
        "tokenizer.chat_template": known_template(architecture, name),
        "localseek.chat_template": "localseek's own: the checkpoint has none",
    }
    return Described(
        values, ("the checkpoint has no chat template: ours is written, without tool calls",)
    )
