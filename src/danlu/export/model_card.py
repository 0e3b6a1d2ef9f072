"""The README.md of an export: facts from the run's own files, nothing else."""

from typing import Any

import yaml


def model_card(report: dict[str, Any], record: dict[str, Any], *, kind: str, verification: dict[str, Any]) -> str:
    """Return Markdown with the front matter model hubs read."""
    recipe, base = report["recipe"], record.get("base_model", {})
    front = {
        "base_model": base.get("name"),
        "license": base.get("licence") or "unknown",
        "library_name": "peft" if kind == "adapter" else "transformers",
        "tags": ["danlu", recipe["method"]["type"], recipe["objective"]["type"]],
    }
    lines = ["---", yaml.safe_dump(front, allow_unicode=True, sort_keys=False).strip(), "---", "", f"# {report['run_id']}", ""]
    lines += [
        f"Made with Danlu {record.get('environment', {}).get('danlu', '')} from the base model `{base.get('name')}`"
        + (f" (revision {base['revision']})" if base.get("revision") else "")
        + f" on `{recipe['dataset']}`.",
        "",
    ]
    bits = recipe["method"].get("bits")
    if bits and kind == "adapter":
        lines += [f"The adapter was trained and measured on base weights loaded in {bits} bits by bitsandbytes; load them the same way.", ""]
    elif bits:
        lines += [f"The base weights were loaded in {bits} bits for training; the weights here are those, turned back, with the adapter merged in.", ""]
    verdict = report.get("verdict") or {}
    lines += ["## Verdict", "", (verdict.get("text") or {}).get("en", "This run was not evaluated."), ""]
    if report.get("metrics"):
        lines += ["| metric | base | tuned | change | 95 % interval | p | examples |", "|---|--:|--:|--:|--:|--:|--:|"]
        lines += [_metric_row(name, metric) for name, metric in report["metrics"].items()]
        lines.append("")
    retention = report.get("retention") or {}
    if retention.get("label"):
        lines += [
            f"General ability (bundled set): **{retention['label']}**, NLL per token {_number(retention.get('base'))} -> {_number(retention.get('tuned'))}.",
            "",
        ]
    for warning in report.get("warnings") or []:
        lines.append(f"- Warning `{warning['code']}`: {warning['en']}")
    for diagnosis in report.get("coach") or []:
        if diagnosis["severity"] != "info":
            lines.append(f"- Training, `{diagnosis['name']}`: {diagnosis['what']['en']} {diagnosis['why']['en']}")
    rows = report.get("rows") or {}
    lines += [
        "",
        "## Data",
        "",
        "```yaml",
        yaml.safe_dump({k: v for k, v in rows.items() if isinstance(v, int | float | str | dict)}, allow_unicode=True, sort_keys=False).strip(),
        "```",
    ]
    lines += [
        "",
        "## Recipe",
        "",
        f"Fingerprint `{record.get('fingerprint', '')}`.",
        "",
        "```yaml",
        yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False).strip(),
        "```",
    ]
    lines += [
        "",
        "## Verification",
        "",
        f"Compared with the trained model on {verification['num_prompts']} prompts: the largest logit difference is "
        f"{verification['max_difference']:.1e} of the largest logit (bound {verification['bound']:.0e}); "
        f"{verification['num_different_tokens']} greedy tokens differ.",
        "",
    ]
    lines += ["## Licence", "", f"The base model states: {base.get('licence') or 'nothing; ask its author'}. The data's licence is yours to state.", ""]
    return "\n".join(lines)


def _metric_row(name: str, metric: dict[str, Any]) -> str:
    low, high = metric.get("ci") or (None, None)
    cells = [
        name,
        *(_number(metric.get(key)) for key in ("base", "tuned", "delta")),
        f"{_number(low)} to {_number(high)}",
        _number(metric.get("p")),
        str(metric.get("num_examples", "")),
    ]
    return "| " + " | ".join(cells) + " |"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "-"
