"""What is asked of the engine, as plain frozen values: how to load a model and how to answer.

Every verb, the app and the engine child share these, so an option is named here once: `Sampling`
says how tokens are chosen, `Request` is one generation, `LoadOptions` one load, and
`GenerationOptions` what a person set before either is complete. Imports nothing of localseek.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

MAX_DEPTH = 4  # tokens drafted a step; the deepest at which a gain was ever reported
DEFAULT_MODEL = "nano"

Role = Literal["system", "user", "assistant"]
Mtp = Literal["auto", "off"] | int  # tokens drafted a step: chosen by measurement, none, or these


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; an assistant's `content` is its answer without reasoning."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Fixed:
    """What the user has fixed of a placement; None and empty leave it to the engine."""

    gpu_layers: int | None = None
    cpu_experts: int | None = None
    place: tuple[tuple[str, str], ...] = ()  # (regular expression over tensor names, device)
    devices: tuple[str, ...] = ()
    cache_type: str = ""
    mmap: bool | None = None
    remote: tuple[str, ...] = ()  # HOST:PORT of workers
    remote_timeout_s: float = 120.0  # a worker that lets the engine wait for longer is lost


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load a model. `ctx` 0 means: as long as trained, at most 32,768 tokens."""

    model: str = ""  # path of a GGUF file
    ctx: int = 0
    threads: int = 0  # 0: as many as physical cores
    mtp: Mtp = "auto"
    draft_model: str = ""  # path of a file with the multi-token prediction layer; "": look for it
    fixed: Fixed = field(default_factory=Fixed)
    prompt_cache: bool = False  # save what was read, and put it back in a later run
    sequence_key: str = field(default="", repr=False)  # in hexadecimal: what was read is sealed
    parallel: int = 1  # requests that are answered at once at most; 0: chosen
    chat_template: str = ""  # jinja, in place of the file's own
    draft_memory: bool = False  # begin with what an earlier run learnt of drafts, and keep it


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose tokens; None takes what the model's file recommends, then our default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    top_n_sigma: float | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    repeat_last_n: int | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_penalty_last_n: int | None = None
    seed: int | None = None  # None: a new one each time
    # What follows is for the answer only, after the reasoning.
    logit_bias: tuple[tuple[int | str, float | None], ...] = ()  # token, bias; None: never
    schema: str = ""  # a JSON schema, as JSON
    grammar: str = ""  # GBNF or Lark

    @property
    def shaped(self) -> bool:
        """Tell whether the answer has a form to keep."""
        return bool(self.schema or self.grammar)


@dataclass(frozen=True, slots=True)
class Request:
    """One generation. `think` None leaves the template's own default.

    `think_budget`: tokens of reasoning after which it is closed and the answer follows.
    """

    messages: tuple[Message, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    think: bool | None = None
    think_budget: int | None = None
    effort: str = ""  # of the reasoning, where the template knows it: high, max
    begun_reasoning: str = ""  # a reply that was cut off goes on after this
    begun_answer: str = ""
    raw: bool = False  # the one message is the prompt itself: no template, no reasoning apart
    keep: bool = True  # with a prompt cache: save what was read once the reply is there

    @property
    def continues(self) -> bool:
        """Tell whether a reply that was cut off goes on."""
        return bool(self.begun_reasoning or self.begun_answer)


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """What a person sets, the same for every verb; None leaves a value to the model's file.

    `load` lacks the file's path and `request` its messages until both are known.
    """

    model: str = DEFAULT_MODEL
    system: str = ""
    load: LoadOptions = field(default_factory=lambda: LoadOptions(draft_memory=True))
    request: Request = field(default_factory=Request)

    def load_options(self, path: Path) -> LoadOptions:
        """Give what the engine is told to load the model file `path`."""
        return replace(self.load, model=str(path))

    def request_for(self, messages: tuple[Message, ...]) -> Request:
        """Give what the engine is asked for `messages`."""
        return replace(self.request, messages=messages)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the child says of a model it has loaded."""

    path: str
    name: str
    architecture: str
    description: str  # llama.cpp's own: architecture, size, type
    size_bytes: int
    parameters: int
    context_size: int
    context_trained: int
    drafting: bool  # the multi-token prediction layer is loaded and in use
    thinks: bool  # the chat template opens or knows <think>
    load_seconds: float = 0.0
    parallel: int = 1  # requests that are answered at once
    network: str = ""  # what the engine's process can reach, in words
    placement: dict[str, Any] = field(default_factory=dict)  # a `Placement`'s fields
    allotted: tuple[dict[str, Any], ...] = ()  # what llama.cpp says of it, by device

    @property
    def taken_bytes(self) -> dict[str, int]:
        """Give what weights, caches and buffers take together, by device."""
        parts = ("weights", "cache", "draft_cache", "compute")  # of placing.memory.DeviceMemory
        return {
            one["device"]: sum(int(one[part]) for part in parts)
            for one in self.placement.get("memory", ())
        }
