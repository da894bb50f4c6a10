"""A loaded model with what every request needs: its template, decoder, keeper of sequences.

Takes load options, gives prompts as tokens and samplers as a request wants them. Knows nothing
about messages on pipes.
"""

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from localseek.engine.bridge import Remote
from localseek.engine.decoder import Decoder
from localseek.engine.depth import DepthController
from localseek.engine.draft_policy import FixedDepth
from localseek.engine.keeper import Keeper, fingerprint
from localseek.engine.llama import AbortFlag, Sampler
from localseek.engine.loading import load, remote_notices
from localseek.engine.protocol import LoadOptions, ModelInfo, Request
from localseek.errors import ModelError
from localseek.sequences import SequenceStore
from localseek.template import ChatTemplate, Prompt

DEFAULTS = {"temperature": 0.6, "top_p": 0.95, "top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0}
RECOMMENDED = {  # where a GGUF carries what its publisher recommends
    "temperature": "general.sampling.temp", "top_p": "general.sampling.top_p",
    "top_k": "general.sampling.top_k", "min_p": "general.sampling.min_p",
    "repeat_penalty": "general.sampling.penalty_repeat",
}  # fmt: skip


class Loaded:
    """A loaded model with everything that a request needs."""

    def __init__(
        self, options: LoadOptions, progress: Callable[[float], None], abort: AbortFlag,
        remotes: Sequence[Remote] = (),
    ) -> None:  # fmt: skip
        started = time.perf_counter()
        parts = load(options, progress, abort, remotes)
        info, placement = parts.planned.info, parts.planned.placement
        self.model, self.target = parts.model, parts.target
        fixed = 0 if options.mtp in ("auto", "off") else int(options.mtp)
        policy = DepthController() if options.mtp == "auto" else FixedDepth(fixed)
        self.decoder = Decoder(self.model, self.target, parts.drafter, policy)
        self.keeper: Keeper | None = None
        if options.prompt_cache:
            caches = f"{placement.cache_type}, drafts {parts.drafter is not None}"
            belongs = fingerprint(Path(options.model), caches)
            self.keeper = Keeper(self.decoder, SequenceStore(), belongs)
        bos, eos = self.model.text(self.model.bos), self.model.text(self.model.eos)
        source = info.chat_template
        self.template = ChatTemplate(source, bos, eos) if source else None
        self.info = ModelInfo(
            path=options.model,
            name=info.name,
            architecture=info.architecture,
            description=self.model.description,
            size_bytes=info.size_bytes,
            parameters=self.model.n_params,
            context_size=self.target.n_ctx,
            context_trained=self.model.n_ctx_train,
            drafting=placement.draft,
            thinks=bool(self.template and self.template.thinks),
            load_seconds=round(time.perf_counter() - started, 3),
            placement=asdict(placement),
            allotted=tuple(asdict(one) for one in parts.memory()),
        )
        self.notices = [*placement.warnings, *remote_notices(placement, remotes)]

    def prompt(self, request: Request) -> tuple[Prompt, list[int]]:
        """Render and tokenize a request's messages."""
        if self.template:
            prompt = self.template.render(request.messages, request.think)
        else:
            prompt = Prompt("\n\n".join(m.content for m in request.messages), opened=False)
        tokens = self.model.tokenize(prompt.text)
        if self.model.add_bos and tokens[:1] != [self.model.bos]:
            tokens.insert(0, self.model.bos)
        if not tokens:
            raise ModelError("The prompt is empty.", "Write something.")
        if len(tokens) >= self.target.n_ctx:
            raise ModelError(
                f"The prompt has {len(tokens):,} tokens and the context holds "
                f"{self.target.n_ctx:,}.",
                "Shorten it, start a new conversation, or raise --ctx.",
            )
        return prompt, tokens

    def sampler(self, request: Request) -> Sampler:
        """Make the sampler: the request's values, else the file's, else our defaults."""
        chosen: dict[str, float] = {}
        for name, default in DEFAULTS.items():
            value = getattr(request.sampling, name)
            if value is None:
                value = self.model.metadata(RECOMMENDED[name])
            try:
                chosen[name] = float(default if value is None else value)
            except ValueError:
                chosen[name] = default
        seed = request.sampling.seed
        return Sampler(
            self.model.n_vocab, chosen["temperature"], int(chosen["top_k"]), chosen["top_p"],
            chosen["min_p"], chosen["repeat_penalty"],
            secrets.randbits(32) if seed is None else seed & 0xFFFFFFFF,
        )  # fmt: skip
