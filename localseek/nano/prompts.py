"""The embedded model's prompt format: DeepSeek's special tokens, the chat template, texts in it.

Takes questions and earlier turns, gives text. Plain strings: knows nothing about token numbers.
"""

from localseek.nano.problems import Problem

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
USER, ASSISTANT, THINK, END_THINK = "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"

# As released with R1: old reasoning is left out, and the reply opens with <think>.
TEMPLATE = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}"
    "{% endif %}{% set ns = namespace(system='') %}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{% set ns.system = ns.system + ('\\n\\n' if ns.system"
    " else '') + message['content'] %}{% endif %}{% endfor %}{{ bos_token }}{{ ns.system }}"
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '<｜User｜>' + message['content'] }}{% elif message['role'] == 'assistant' %}"
    "{% set content = message['content'] %}{% if '</think>' in content %}"
    "{% set content = content.split('</think>')[-1] | trim %}{% endif %}"
    "{{ '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"
)


def prompt(question: str, past: tuple[tuple[str, str], ...] = (), system: str = "") -> str:
    """Render a conversation as TEMPLATE does, ready for the reasoning."""
    turns = "".join(f"{USER}{asked}{ASSISTANT}{answered}{EOS}" for asked, answered in past)
    return f"{BOS}{system}{turns}{USER}{question}{ASSISTANT}{THINK}\n"


def completion(problem: Problem) -> str:
    """Render what the model should write after the prompt."""
    return f"{problem.reasoning}\n{END_THINK}\n\n{problem.answer}{EOS}"
