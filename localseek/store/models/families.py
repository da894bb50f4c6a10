"""What people call a model's family: V3, R1 distill (Qwen2), Coder.

Takes the architecture and the names that a file gives itself, gives a few words, and the
architecture itself where there is nothing better to say. Knows nothing about files.
"""

import re

DISTILLED = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}  # what R1 was distilled into
ALONE = {
    "deepseek": "MoE-16B", "deepseek32": "V3.2", "deepseek4": "V4", "deepseek2-ocr": "OCR",
}  # fmt: skip
# Of architecture deepseek2, by words of the name; the first that is there counts.
LATENT = (
    (r"prover-?v2", "Prover V2"), (r"coder-?v2-lite", "Coder V2 Lite"), (r"coder-?v2", "Coder V2"),
    (r"v2\.5", "V2.5"), (r"v2-lite", "V2-Lite"), (r"\bv2\b", "V2"), (r"v3\.1", "V3.1"),
    (r"\br1\b", "R1"), (r"\bv3\b", "V3"), (r"kimi", "Kimi"), (r"glm", "GLM"),
)  # fmt: skip
DENSE = (
    (r"prover", "Prover"), (r"coder", "Coder"), (r"math", "Math"), (r"deepseek-?llm", "LLM"),
    (r"deepseek", "LLM"),
)  # fmt: skip
LITE_EXPERTS, V2_EXPERTS = 64, 160  # routed experts of a layer: V2-Lite's, V2's; V3 has 256


def family(architecture: str, names: str, experts: int, nextn_layers: int) -> str:
    """Name the family; `names` is all that a file and its place call it."""
    spoken = re.sub(r"[\s_]+", "-", names.lower())
    if architecture in DISTILLED:
        if re.search(r"\br1\b", spoken) and re.search(r"distill|r1-0528", spoken):
            return f"R1 distill ({DISTILLED[architecture]})"
        ours = architecture == "llama" and "deepseek" in spoken
        return _first(DENSE, spoken, architecture) if ours else architecture
    if architecture == "deepseek2":
        return _first(LATENT, spoken, "") or _by_counts(experts, nextn_layers)
    return ALONE.get(architecture, architecture or "?")


def _by_counts(experts: int, nextn_layers: int) -> str:
    if nextn_layers or experts > V2_EXPERTS:  # V3 alone has a layer that predicts further
        return "V3"
    return {LITE_EXPERTS: "V2-Lite", V2_EXPERTS: "V2"}.get(experts, "deepseek2")


def _first(known: tuple[tuple[str, str], ...], spoken: str, otherwise: str) -> str:
    return next((words for pattern, words in known if re.search(pattern, spoken)), otherwise)
