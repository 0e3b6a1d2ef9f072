"""An engine: a model in memory that answers until nobody asks any more."""

from pathlib import Path
from typing import Literal

from danlu.worker.kinds.base import KINDS, JobKind, Outcome


@KINDS.register
class Chat(JobKind):
    """A base model with the adapters of runs over it, or one run whose model cannot be shared."""

    type: Literal["chat"] = "chat"
    base_model: str
    """Name of the base model."""
    path: str | None = None
    """Its folder, where the name is none of the catalogue."""
    dtype: str | None = None
    """Number format in which it computes."""
    run_id: str | None = None
    """The only run it answers for."""
    run_dir: str | None = None
    """Folder of that run."""
    idle_seconds: float = 600.0
    """It ends when nobody has asked for so long."""

    def work(self, folder: Path) -> Outcome:
        """Load, then answer until it is idle or told to stop."""
        from danlu.models.catalogue import find_base_model
        from danlu.run_dir import RunDir
        from danlu.services.answering import RunAnswers, SharedAnswers
        from danlu.services.engine import Answers, Engine

        answers: Answers
        if self.run_dir is not None:
            answers = RunAnswers(RunDir(Path(self.run_dir)))
        else:
            answers = SharedAnswers(find_base_model(self.path or self.base_model).folder, self.dtype)
        engine = Engine(folder, answers, idle_seconds=self.idle_seconds)
        engine.serve()
        return "succeeded", {"num_answers": engine.num_answers}
