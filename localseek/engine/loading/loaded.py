"""A loaded model with what every request needs: its template, decoder, keeper of sequences.

Takes load options, gives prompts as tokens and samplers as a request wants them. Knows nothing
about messages on pipes.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from localseek.engine.decoding.decoder import Decoder
from localseek.engine.decoding.guide import Guides
from localseek.engine.decoding.sampling import make_sampler
from localseek.engine.decoding.scheduler import Scheduler
from localseek.engine.decoding.trimming import (
    Cut,
    Overhead,
    Trimmer,
    reply_room,
    split_turns,
    without,
)
from localseek.engine.drafting.depth import DepthController
from localseek.engine.drafting.draft_policy import FixedDepth
from localseek.engine.drafting.shared_depth import SharedDepth
from localseek.engine.llama import AbortFlag, Sampler
from localseek.engine.loading.keeper import Keeper, origin
from localseek.engine.loading.load import load, remote_notices
from localseek.engine.loading.surroundings import Surroundings
from localseek.engine.loading.vocabulary import read_vocabulary
from localseek.errors import ContextError, ModelError, UsageError
from localseek.options import LoadOptions, Message, ModelInfo, Request
from localseek.store.sequences import SequenceStore
from localseek.text.reasoning import OPEN
from localseek.text.template import BLOCK_END, ChatTemplate, Prompt, going_on

GRAPH_STEPS = 2  # on a device: the first pays for a new graph, the second for its capture


@dataclass(frozen=True)
class Prepared:
    """A request's prompt, what of the conversation is not in it, and a notice of that or ""."""

    prompt: Prompt
    tokens: list[int]
    turns_left_out: int
    notice: str


class Loaded:
    """A loaded model with everything that a request needs."""

    def __init__(
        self, options: LoadOptions, progress: Callable[[float], None], abort: AbortFlag,
        cancelled: Callable[[int], bool], around: Surroundings,
    ) -> None:  # fmt: skip
        started = time.perf_counter()
        parts = load(options, progress, abort, around.remotes)
        info, placement = parts.planned.info, parts.planned.placement
        self.model, self.target = parts.model, parts.target
        self.model.vocabulary = read_vocabulary(self.model, info)
        fixed = 0 if options.mtp in ("auto", "off") else int(options.mtp)
        automatic = options.mtp == "auto"
        # In the processor's memory hidden rows cost nothing; from a device they must be fetched,
        # and a graph that is not as the one before is built again, on GPUs also captured.
        away = placement.gpu_layers > 0
        settling = GRAPH_STEPS if away else 0
        compares = away and parts.parallel == 1
        self._store = parts.planned.learnt
        self._depths = SharedDepth(
            lambda: DepthController(compares, settling) if automatic else FixedDepth(fixed),
            self._store.read() if self._store else {},
        )
        self.decoder = Decoder(self.model, self.target, parts.drafter, self._depths.of(1))
        self.scheduler: Scheduler | None = None  # in place of the decoder, for several requests
        if parts.parallel > 1:
            self.scheduler = Scheduler(
                self.model, self.target, parts.parallel, parts.lanes, self._depths, cancelled
            )
        self.keeper: Keeper | None = None
        # Never without a key beside an encrypted history, whoever asks for it.
        locked = around.history_locked and not options.sequence_key
        withheld = options.prompt_cache and locked
        if options.prompt_cache and self.scheduler is None and not withheld:
            caches = f"{placement.cache_type}, drafts {parts.drafter is not None}"
            if any(tensor.name.startswith("rope_factors_long") for tensor in info.tensors):
                caches += f", context {self.target.n_ctx}"  # it decides how positions are coded
            store = SequenceStore(key=bytes.fromhex(options.sequence_key) or None)
            with contextlib.suppress(OSError):  # what cannot go now goes with the next one saved
                store.evict()  # the limit may have been lowered
            self.keeper = Keeper(self.decoder, store, origin(parts.planned.files, caches))
        bos, eos = self.model.text(self.model.bos), self.model.text(self.model.eos)
        source = options.chat_template or info.chat_template
        self.template = ChatTemplate(source, bos, eos) if source else None
        thinks = bool(self.template and self.template.thinks)
        self._trimmer = Trimmer(
            lambda text: len(self.model.tokenize(text)), self.target.n_ctx, thinks
        )
        self._guides = Guides(self.model)
        self._told: set[int] = set()  # hashes of what was said to be left out
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
            thinks=thinks,
            parallel=parts.parallel,
            load_seconds=round(time.perf_counter() - started, 3),
            placement=asdict(placement),
            allotted=tuple(asdict(one) for one in parts.memory()),
        )
        self.notices = [*placement.warnings, *remote_notices(placement, around.remotes)]
        if withheld:
            self.notices.append("The prompt cache is not used: the history is locked.")
        if parts.planned.notice:
            self.notices.append(parts.planned.notice)

    def keep_learnt(self) -> None:
        """Keep what was learnt of drafts for the next start, if that is wanted."""
        if self._store is not None and (found := self._depths.learnt()):
            self._store.write(found)

    def prompt(self, request: Request) -> Prepared:
        """Render and tokenize a request's messages, the oldest turns left out if they must be.

        Raises ContextError if the last prompt alone, with the system prompt, is too long.
        """
        n_ctx = self.target.n_ctx
        if request.effort and not (self.template and self.template.takes_effort):
            raise UsageError("This model knows no reasoning effort.", "Leave --effort out.")
        if request.continues and request.sampling.shaped:
            raise UsageError(
                "An answer that a schema or a grammar holds cannot go on.", "Ask again."
            )
        cut = self._trimmer.cut(request, lambda: self._overhead(request))
        prompt, tokens = self._tokens(cut.messages, request)
        # The sum over messages may be a little too small; of the reply's room half is enough.
        most = n_ctx - reply_room(n_ctx, request, self._trimmer.thinks) // 2
        while len(tokens) > most and len(split_turns(cut.messages)[1]) > 1:
            cut = Cut(without(cut.messages, 1), cut.left_out + 1, True)
            prompt, tokens = self._tokens(cut.messages, request)
        if not tokens:
            raise ModelError("The prompt is empty.", "Write something.")
        if len(tokens) >= n_ctx:
            raise ContextError(
                f"The prompt has {len(tokens):,} tokens and the context holds {n_ctx:,}.",
                "Shorten it, or raise --ctx.",
            )
        notice = cut.notice(n_ctx) if cut.left_out and self._is_news(request, cut) else ""
        return Prepared(prompt, tokens, cut.left_out, notice)

    def _is_news(self, request: Request, cut: Cut) -> bool:
        """Tell whether the last prompt moved the cut, or this process never told of it."""
        beginning = hash(request.messages[: len(request.messages) - len(cut.messages)])
        known = beginning in self._told
        self._told.add(beginning)
        return cut.moved or not known

    def _tokens(
        self, messages: Sequence[Message], request: Request
    ) -> tuple[Prompt, list[int]]:  # fmt: skip
        if self.template and not request.raw:
            prompt = self.template.render(messages, request.think, request.effort)
        else:
            prompt = Prompt("\n\n".join(m.content for m in messages), opened=False)
        if request.continues:
            prompt = going_on(prompt, request.begun_reasoning, request.begun_answer, self.closing)
        tokens = self.model.tokenize(prompt.text)
        if self.model.add_bos and tokens[:1] != [self.model.bos]:
            tokens.insert(0, self.model.bos)
        return prompt, tokens

    def _overhead(self, request: Request) -> Overhead:
        """Measure what the template adds: a word's prompt alone, and with a turn before it."""
        request = replace(request, begun_reasoning="", begun_answer="")
        always, _ = split_turns(request.messages)
        word = Message("user", "a")
        turn = (word, Message("assistant", "a"))
        alone = len(self._tokens((*always, word), request)[1])
        after = len(self._tokens((*always, *turn, word), request)[1])
        words = len(self.model.tokenize(word.content))
        return Overhead(alone - words, after - alone - 2 * words)

    def sampler(self, request: Request, opened: bool) -> Sampler:
        """Make a request's sampler; `opened` when its prompt ends inside `<think>`."""
        may_open = (
            request.think is not False
            and not (request.continues or request.raw)
            and (self.info.thinks or len(self.model.tokenize(OPEN)) == 1)
        )
        return make_sampler(
            self.model, self._guides, request, opened, may_open, self.closing
        )

    @property
    def closing(self) -> str:
        """Give how the model itself ends its reasoning."""
        return self.template.closing if self.template else BLOCK_END

    def ends(self, request: Request) -> frozenset[int]:
        """Give the tokens that end a reply: the model's, and stop texts that are one unseen token.

        A special token has no text in the reply, so no stop text could be found there.
        """
        asked = (self.model.tokenize(text) for text in request.stop)
        unseen = {one[0] for one in asked if len(one) == 1 and not self.model.piece(one[0])}
        return self.model.stops | unseen
