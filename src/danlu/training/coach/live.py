"""The coach beside a running loop: a listener that says a diagnosis once, and says so when it no longer holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from danlu.files import read_jsonl
from danlu.training.coach.diagnosis import Diagnosis
from danlu.training.coach.history import History
from danlu.training.coach.judge import judge

if TYPE_CHECKING:
    from danlu.recipe.recipe import Recipe
    from danlu.reporter import Reporter
    from danlu.run_dir import RunDir

JUDGEMENTS = 50
"""About so many times in a run the curves are looked at, besides every validation."""


class Coach:
    """Gets (kind, fields) from the reporter and reports events of kind `coach`, with `status` `found` or `resolved`.

    What was said before a kill is not said again: steps that are trained again pass in silence.
    """

    def __init__(self, recipe: Recipe, run_dir: RunDir, reporter: Reporter) -> None:
        self.history = History.read(recipe, run_dir)
        self.reporter = reporter
        self._said: dict[str, dict[str, Any]] = {}
        self._silent_until = -1
        for event in read_jsonl(run_dir.events):
            if event["kind"] == "coach":
                self._remember(event)

    def begin(self) -> None:
        """Judge the data, before the first step."""
        if not self.history.steps:
            self._say(0)

    def __call__(self, kind: str, fields: dict[str, Any]) -> None:
        """Listen."""
        if kind not in ("metrics", "out_of_memory", "not_finite"):
            return
        self.history.see(kind, fields)
        step = int(fields.get("step", 0))
        if kind == "not_finite" or (kind == "metrics" and self._is_due(step, fields)):
            self._say(step)

    def _is_due(self, step: int, fields: dict[str, Any]) -> bool:
        every = max(5, self.history.num_steps // JUDGEMENTS)
        return "validation_loss" in fields or step % every == 0 or step == self.history.num_steps

    def _say(self, step: int) -> None:
        if step <= self._silent_until:
            return
        found = {d.name: d for d in judge(self.history)}
        for name in [name for name in self._said if name not in found]:
            text = {"en": f"No longer so: {self._said[name]['what']['en']}", "zh": f"已不再如此：{self._said[name]['what']['zh']}"}
            self._event(self._said[name] | text, "resolved", step)
        for name, diagnosis in found.items():
            if name not in self._said:
                self._event(diagnosis.to_dict(), "found", step)

    def _event(self, content: dict[str, Any], status: str, step: int) -> None:
        kept = {key: content[key] for key in Diagnosis.__dataclass_fields__} | {"en": content["en"], "zh": content["zh"]}
        event = kept | {"status": status, "step": step}
        self.reporter.event("coach", event["en"], **event)
        self._remember(event, is_past=False)

    def _remember(self, event: dict[str, Any], *, is_past: bool = True) -> None:
        if event["status"] == "found":
            self._said[event["name"]] = event
        else:
            self._said.pop(event["name"], None)
        if is_past:
            self._silent_until = max(self._silent_until, event["step"])
