"""A chat template for V3.2 and V4, whose releases give theirs as Python and not as jinja.

Takes the GGUF architecture and the tokenizer's metadata; gives more metadata and what the user
should know. Ours covers plain chat: system texts first, past answers without their reasoning, a
next answer with `<think>` or without. It has no tool calls. The file says that it is ours.
"""

from __future__ import annotations

from converters.layout import Described, Metadata, Value

_ARCHITECTURES = ("deepseek32", "deepseek4")
_TOKENS = ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>", "<｜end▁of▁sentence｜>")

TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages if message['role'] == 'system' -%}
  {{- ('' if loop.first else '\\n\\n') + message['content'] -}}
{%- endfor -%}
{%- for message in messages -%}
  {%- if message['role'] == 'user' -%}
    {{- '<｜User｜>' + message['content'] -}}
  {%- elif message['role'] == 'assistant' -%}
    {%- set answer = message['content'].split('</think>')[-1] -%}
    {{- '<｜Assistant｜></think>' + answer + '<｜end▁of▁sentence｜>' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<｜Assistant｜>' + ('<think>' if thinking is defined and thinking else '</think>') -}}
{%- endif -%}
"""


def missing_template(architecture: str, tokenizer: Metadata) -> Described:
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
        "tokenizer.chat_template": TEMPLATE,
        "localseek.chat_template": "localseek's own: the checkpoint has none",
    }
    return Described(
        values, ("the checkpoint has no chat template: ours is written, without tool calls",)
    )
