"""What the command line hands to the terminal app: how to load the model and how to answer.

Plain frozen values; the app turns them into `LoadOptions` and `Request`s.
"""

from dataclasses import dataclass, field
from pathlib import Path

from localseek.engine.protocol import Fixed, LoadOptions, Mtp, Sampling


@dataclass(frozen=True, slots=True)
class Options:
    """How to load a model and how to answer; zeros and None leave the choice to the engine."""

    system: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    think: bool | None = None
    think_budget: int | None = None
    ctx: int = 0
    threads: int = 0
    mtp: Mtp = "auto"
    draft_model: str = ""
    fixed: Fixed = field(default_factory=Fixed)
    prompt_cache: bool = False

    def load_options(self, model_path: Path) -> LoadOptions:
        """Give what the engine needs to load the model at `model_path`."""
        return LoadOptions(
            model=str(model_path),
            ctx=self.ctx,
            threads=self.threads,
            mtp=self.mtp,
            draft_model=self.draft_model,
            fixed=self.fixed,
            prompt_cache=self.prompt_cache,
            draft_memory=True,
        )
