"""The embedded demonstration model: its checkpoint, the problems it learned, and its training.

`CHECKPOINT` is a folder in the released DeepSeek-V3 layout (config.json, model.safetensors in
FP8, tokenizer files). Nothing here imports torch but `model.py` and `train.py`.
"""

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "checkpoint"
