"""Use case: turn a finished run into files that others load, verified against what was trained."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from danlu.errors import ExportError
from danlu.files import read_jsonl
from danlu.recipe.base import EXPORTERS
from danlu.recipe.recipe import Recipe
from danlu.reporter import Reporter
from danlu.run_dir import RunDir
from danlu.services import pipeline
from danlu.services.reports import build_report

NUM_PROMPTS = 8


def export(run_dir: RunDir, to: str, reporter: Reporter | None = None, *, out: Path | None = None) -> Path:
    """Export a run as `adapter` or `merged`; return the folder.

    Raises:
        ExportError: the run is not finished.
        VerificationError: the result does not behave like the trained model.
    """
    exporter = EXPORTERS.parse(to)
    if not (run_dir.path / "training.json").exists():
        raise ExportError(
            f"run {run_dir.id} has not finished training", why="there is nothing trained to export yet", fix=f"finish it first: danlu resume {run_dir.id}"
        )
    from danlu.export.model_card import model_card
    from danlu.export.run import Source
    from danlu.export.run import run as export_run

    recipe = pipeline.resolved(run_dir)
    record = run_dir.read_record()
    base_dir = pipeline.base_folder(run_dir)
    has_adapter = recipe.method.makes_adapter
    source = Source(
        str(recipe.base_model),
        base_dir,
        run_dir.adapter if has_adapter else None,
        None if has_adapter else run_dir.model,
        str(recipe.training.dtype),
        recipe.method,
        recipe.objective.makes_reward_model,
    )
    pair = pipeline.open_pair(run_dir, recipe, base_dir)
    target = out if out is not None else run_dir.exports / to
    if out is not None and out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ExportError(f"{out} is not an empty folder", why="an export never overwrites what it did not write", fix="give a new folder with --out")
    if reporter:
        reporter.stage("export", format=to)
    with pair.tuned() as trained:
        result = export_run(
            exporter,
            source,
            target,
            trained=trained,
            prompts=_prompts(recipe, run_dir, pair.renderer),
            card=lambda verification: model_card(build_report(run_dir), record, kind=to, verification=verification.to_dict()),
        )
    if reporter:
        reporter.event("exported", f"{to} export verified on {result.num_prompts} prompts: {target}", path=str(target), **result.to_dict())
    return target


def _prompts(recipe: Recipe, run_dir: RunDir, renderer: Any) -> list[list[int]]:
    """Token ids of held-out prompts (of training prompts when nothing was held out)."""
    from danlu.export.verify import NUM_NEW_TOKENS

    limit = max(1, int(recipe.data.max_seq_len) - NUM_NEW_TOKENS)  # the comparison goes on after the prompt, within what the model can read
    for split in ("test", "validation", "train"):
        examples = list(islice(read_jsonl(run_dir.data / f"{split}.jsonl"), NUM_PROMPTS))
        if not examples:
            continue
        if recipe.objective.needs == "text":
            texts = renderer.tokenizer([e["text"] for e in examples], add_special_tokens=False)["input_ids"]
            return [ids[: min(32, limit)] for ids in texts if ids]
        prompts = []
        for example in examples:
            turns = [i for i, m in enumerate(example["messages"]) if m["role"] == "assistant"]
            prompts.append(renderer.prompt_ids(example["messages"][: turns[-1] if turns else None], example.get("tools"))[-limit:])
        return prompts
    raise ExportError(f"run {run_dir.id} has no prompts to verify with", why="its data folder is empty", fix="run it again")
