"""Show one example as a model reads it: tokens, and which of them are trained on."""

from pathlib import Path
from typing import Literal

from danlu.worker.kinds.base import KINDS, JobKind, Outcome

MAX_TOKENS = 8192
"""What is shown of an example; it is stored with the job."""


@KINDS.register
class ShowExample(JobKind):
    """The loss mask of one row. A process of its own: it loads a tokenizer, whose template may be anything."""

    type: Literal["show_example"] = "show_example"
    path: str
    """The data file."""
    digest: str
    """SHA-256 that the file must have."""
    number: int
    """Line, sheet row or record of the example."""
    base_model: str
    """Whose tokenizer and chat template are used."""
    objective: str = "sft"
    """What is trained on depends on it."""

    def work(self, folder: Path) -> Outcome:
        """Render the example.

        Raises:
            DataError: that row is not there, or cannot be trained on.
        """
        from danlu.data.findings import check_digest
        from danlu.errors import DataError
        from danlu.services.datasets import rendered_examples

        check_digest(Path(self.path), self.digest)
        shown = list(rendered_examples(self.path, self.base_model, self.objective, line=self.number))
        if not shown:
            raise DataError(
                f"row {self.number} cannot be shown", why="it does not exist, or it cannot be trained on", fix="look at the findings for the reason of each row"
            )
        blocks = [{"tokens": one.tokens[:MAX_TOKENS], "loss_mask": one.mask[:MAX_TOKENS], "num_tokens": len(one.ids)} for one in shown]
        return "succeeded", {"number": self.number, "blocks": blocks}
