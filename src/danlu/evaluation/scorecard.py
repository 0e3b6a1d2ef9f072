"""The scorecard: from the suites' per-example numbers to a verdict, with intervals, p-values and caveats.

Reads and returns plain values; needs no model and no torch, so that it can be made again at any time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from danlu.evaluation import caveats, compare
from danlu.evaluation.compare import Comparison, Paired
from danlu.files import read_json

if TYPE_CHECKING:
    from danlu.recipe.recipe import Recipe
    from danlu.run_dir import RunDir

PRIMARY = "nll_per_token"
NLL_TIE = 1e-4
"""Nats per token below which an example counts as a tie."""
SCORE_TIE = 1e-9
KEPT_BELOW = 0.02
FORGOTTEN_ABOVE = 0.10


def build(recipe: Recipe, run_dir: RunDir) -> dict[str, Any]:
    """The scorecard of what has been measured so far. Parts that were not measured are None."""
    heldout, retention, rounds, memorised = (_read(run_dir, name) for name in ("heldout", "retention", "rounds", "memorised"))
    measured = {name: found for name in ("preference", "rewards") if (found := _read(run_dir, name))}
    metrics: dict[str, dict[str, Any]] = {}
    for compared, found in ((compare_preference, measured.get("preference")), (compare_rewards, measured.get("rewards")), (compare_heldout, heldout)):
        if found and found["num_examples"]:
            metrics |= compared(found, seed=recipe.seed)
    kept = compare_retention(retention, seed=recipe.seed) if retention and retention["num_examples"] else None
    headline = headline_of(recipe, metrics)
    verdict = verdict_of(headline, metrics[headline]) if headline else None
    first = next((found for found in (*measured.values(), heldout) if found), None)
    rested_on = heldout or first
    return {
        "schema_version": 1,
        "verdict": verdict,
        "metrics": metrics,
        "retention": kept,
        "rounds": compare_rounds(rounds, seed=recipe.seed) if rounds else None,
        "warnings": caveats.find(run_dir, heldout=first, retention=kept, memorised=memorised, metrics=metrics, keep_best=recipe.training.keep_best),
        "heldout": summary(rested_on) if rested_on else None,
        "seconds": {
            name: found["seconds"]
            for name, found in (*measured.items(), ("heldout", heldout), ("retention", retention), ("rounds", rounds), ("memorised", memorised))
            if found
        },
    }


def headline_of(recipe: Recipe, metrics: dict[str, Any]) -> str | None:
    """The metric the verdict rests on: what the objective is for, else the loss, else None."""
    return next((name for name in (*recipe.objective.headlines, PRIMARY) if name in metrics), None)


def _read(run_dir: RunDir, name: str) -> dict[str, Any] | None:
    path = run_dir.evaluation / f"{name}.json"
    return dict(read_json(path)) if path.exists() else None


def summary(heldout: dict[str, Any]) -> dict[str, Any]:
    """How many rows, tokens and answers the numbers rest on."""
    generation = heldout.get("generation")
    return {
        "num_examples": heldout["num_examples"],
        "num_label_tokens": sum(heldout.get("label_tokens", [])),
        "num_bytes": sum(heldout.get("bytes", [])),
        "num_dropped": len(heldout["dropped"]),
        "num_truncated": len(heldout["truncated"]),
        "num_generated": len(generation["examples"]) if generation else 0,
        "max_new_tokens": generation["max_new_tokens"] if generation else None,
    }


def compare_heldout(heldout: dict[str, Any], *, seed: int) -> dict[str, dict[str, Any]]:
    """Every metric of the held-out suite by name, the primary one first."""
    per_token = Paired(heldout["nats"]["base"], heldout["nats"]["tuned"], heldout["label_tokens"], seed=seed)
    per_byte = Paired(heldout["nats"]["base"], heldout["nats"]["tuned"], heldout["bytes"], seed=seed)
    # The three share one test: they are the same nats, divided differently.
    p = per_token.p_value()
    lower = {"higher_is_better": False, "tie_margin": NLL_TIE, "p": p}
    found = {PRIMARY: _entry(compare.compare(per_token, **lower), "nats/token", "1")}  # type: ignore[arg-type]
    found["perplexity"] = _entry(
        compare.compare(per_token, **lower, statistic=compare.perplexity_difference, transform=compare.perplexity),  # type: ignore[arg-type]
        "exp(nats/token)",
        "1",
    )
    if sum(heldout["bytes"]):
        found["nll_per_byte"] = _entry(compare.compare(per_byte, **lower), "nats/byte", "1")  # type: ignore[arg-type]
    for name, scores in (heldout["generation"] or {"scores": {}})["scores"].items():
        paired = Paired(scores["base"], scores["tuned"], seed=seed)
        found[name] = _entry(compare.compare(paired, higher_is_better=scores["higher_is_better"], tie_margin=SCORE_TIE), scores["unit"], scores["version"])
    return found


def compare_preference(preference: dict[str, Any], *, seed: int) -> dict[str, dict[str, Any]]:
    """Pairs: how often and by how much the chosen answer is likelier per token. Marked answers: wanted against unwanted, both sides equally."""
    tokens, sides = np.maximum(1, preference["label_tokens"]), np.asarray(preference["sides"])
    score = {name: -np.asarray(preference["nats"][name]) / tokens for name in ("base", "tuned")}
    is_reward = preference["settings"]["evaluation"]["objective"] == "reward"
    unit = "reward" if is_reward else "nats/token"
    found = {}
    if "chosen" in sides:
        margin = {name: values[sides == "chosen"] - values[sides == "rejected"] for name, values in score.items()}
        is_right = {name: (values > 0) + 0.5 * (values == 0) for name, values in margin.items()}
        for metric, values, its_unit, tie in (("preference_accuracy", is_right, "0-1", SCORE_TIE), ("preference_margin", margin, unit, NLL_TIE)):
            found[metric] = _entry(compare.compare(Paired(values["base"], values["tuned"], seed=seed), higher_is_better=True, tie_margin=tie), its_unit, "1")
        if not is_reward:
            chosen = Paired(score["base"][sides == "chosen"], score["tuned"][sides == "chosen"], seed=seed)
            found["chosen_likelihood"] = _entry(compare.compare(chosen, higher_is_better=True, tie_margin=NLL_TIE), unit, "1")
    is_marked = (sides == "wanted") | (sides == "unwanted")
    if is_marked.any():
        sign = np.where(sides == "wanted", 1.0, -1.0)[is_marked]
        # Each side counts as a whole, however many answers it has.
        weight = np.where(sign > 0, 1 / max(1, (sign > 0).sum()), 1 / max(1, (sign < 0).sum())) * len(sign) / 2
        base, tuned = (sign * weight * score[name][is_marked] for name in ("base", "tuned"))
        paired = Paired(base, tuned, weight, seed=seed)
        found["label_separation"] = _entry(compare.compare(paired, higher_is_better=True, tie_margin=NLL_TIE), unit, "1")
    return found


def compare_rewards(rewards: dict[str, Any], *, seed: int) -> dict[str, dict[str, Any]]:
    """Mean reward of answers to held-out prompts, in all and by reward function."""
    return {
        name: _entry(compare.compare(Paired(s["base"], s["tuned"], seed=seed), higher_is_better=True, tie_margin=SCORE_TIE), s["unit"], s["version"])
        for name, s in rewards["scores"].items()
    }


def _entry(comparison: Comparison, unit: str, version: str) -> dict[str, Any]:
    detectable = compare.minimal_detectable(comparison.standard_error)
    entry = comparison.to_dict() | {"unit": unit, "version": version, "label": compare.label(comparison), "minimal_detectable_delta": detectable}
    return dict(finite(entry))


def compare_retention(retention: dict[str, Any], *, seed: int) -> dict[str, Any]:
    """Relative change of nats per token on general text, its label, and the same by language."""
    languages = np.asarray(retention["languages"])
    nats = {name: np.asarray(values) for name, values in retention["nats"].items()}
    tokens = np.asarray(retention["label_tokens"])

    def part(rows: Any) -> dict[str, Any]:
        return relative_change(Paired(nats["base"][rows], nats["tuned"][rows], tokens[rows], seed=seed))

    whole = part(np.ones(len(tokens), bool))
    whole["thresholds"] = {"kept_below": KEPT_BELOW, "forgotten_above": FORGOTTEN_ABOVE}
    whole["by_language"] = {str(name): part(languages == name) for name in sorted(set(languages.tolist()))}
    return whole


def relative_change(paired: Paired) -> dict[str, Any]:
    """The change of nats per token as a share of what it was, with what that means for what was known before."""
    found = compare.compare(paired, higher_is_better=False, tie_margin=NLL_TIE)
    low, high = found.relative_ci
    entry = {"label": retention_label(found.relative, low, high), "metric": PRIMARY, "unit": "nats/token", **found.to_dict()}
    entry |= {"delta_ci": list(found.ci), "ci": [low, high]}
    del entry["relative_ci"]
    return dict(finite(entry))


def compare_rounds(rounds: dict[str, Any], *, seed: int) -> dict[str, dict[str, Any]]:
    """The round before against this one, by whose held-out rows they are: `this round`, then the earlier ones.

    On its own rows a round is labelled by whether it improved, on earlier ones by whether it kept what was known.
    """
    found = {}
    for name, part in rounds["rounds"].items():
        if not part["num_examples"]:
            continue
        paired = Paired(part["nats"]["previous"], part["nats"]["tuned"], part["label_tokens"], seed=seed)
        entry = relative_change(paired)
        if name == "this round":
            entry["label"] = compare.label(compare.compare(paired, higher_is_better=False, tie_margin=NLL_TIE))
        found[name] = entry
    return found


def retention_label(rise: float | None, low: float | None, high: float | None) -> str:
    """`kept`, `slightly_worse` or `forgotten` from the relative rise of the loss and its 95 % interval.

    Kept: the whole interval is below +2 %, or the rise is below +2 % and may as well be zero. Forgotten: the
    whole interval is above +10 %. Anything between is slightly worse.
    """
    if rise is None or low is None or high is None:
        return "kept" if rise is not None and rise < KEPT_BELOW else "slightly_worse"
    if high < KEPT_BELOW or (low <= 0 and rise < KEPT_BELOW):
        return "kept"
    return "forgotten" if low > FORGOTTEN_ABOVE else "slightly_worse"


def verdict_of(name: str, primary: dict[str, Any]) -> dict[str, Any]:
    """The verdict on the metric of that name, in numbers and in plain words."""
    keys = ("label", "base", "tuned", "delta", "relative", "ci", "relative_ci", "p", "num_examples", "wins", "ties", "losses", "minimal_detectable_delta")
    facts = {key: primary[key] for key in (*keys, "unit", "higher_is_better")}
    return {"metric": name, "alpha": compare.ALPHA, **facts, "text": verdict_text(name, primary)}


_HEADS = {
    "improved": ("The tuned model is better than the base on examples it never saw", "微调后的模型在从未见过的样例上优于基座模型"),
    "regressed": ("The tuned model is worse than the base on examples it never saw", "微调后的模型在从未见过的样例上不如基座模型"),
    "no_difference": ("No difference between the tuned model and the base can be shown", "无法证明微调后的模型与基座模型有差别"),
}
_FACTS = {
    PRIMARY: (
        ": its loss went from {base:.3f} to {tuned:.3f} nats per token ({change}{interval}; {p}).",
        "：每个词元的损失从 {base:.3f} 变为 {tuned:.3f} 奈特（{change}{interval}；{p}）。",
    ),
    "preference_accuracy": (
        ": it prefers the chosen answer in {tuned:.1%} of the held-out pairs, the base in {base:.1%} ({change}{interval}; {p}).",
        "：在留出的偏好对中，它有 {tuned:.1%} 更倾向于被选中的回答，基座为 {base:.1%}（{change}{interval}；{p}）。",
    ),
    "label_separation": (
        ": half the lead of wanted over unwanted answers in log-likelihood per token went from {base:.3f} to {tuned:.3f} nats ({change}{interval}; {p}).",
        "：好回答比坏回答领先的每词元对数似然（取半）从 {base:.3f} 变为 {tuned:.3f} 奈特（{change}{interval}；{p}）。",
    ),
    "reward": (
        ": the mean reward of its answers to held-out prompts is {tuned:.3f}, that of the base {base:.3f} ({change}{interval}; {p}).",
        "：它对留出问题的回答平均奖励为 {tuned:.3f}，基座为 {base:.3f}（{change}{interval}；{p}）。",
    ),
}
_RECORD = (
    " It does better on {wins} and worse on {losses} of {num_examples} held-out examples.",
    "在 {num_examples} 条留出样例中，{wins} 条变好，{losses} 条变差。",
)
_INTERVALS = (", 95 % interval {low} to {high}", "，95% 区间 {low} 至 {high}")
_UNDETECTABLE = (
    " With this many examples a change smaller than about {share} cannot be told from chance.",
    "以这样的样例数，小于约 {share} 的变化无法与偶然区分。",
)
_TOO_FEW = (" So few examples are not conclusive.", "样例太少，结论不可靠。")


def verdict_text(name: str, primary: dict[str, Any]) -> dict[str, str]:
    """Two or three sentences for someone who has never trained a model. A loss changes by per cent, other metrics by their own unit."""
    p, is_loss = primary["p"], name == PRIMARY
    facts = {key: primary[key] for key in ("base", "tuned", "wins", "losses", "num_examples")} | {"p": f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"}
    low, high = primary["relative_ci"] if is_loss else primary["ci"]
    texts = []
    for language, sign in enumerate((" %", "%")):

        def shown(value: float, sign: str = sign) -> str:
            return _percent(value) + sign if is_loss else f"{value:+.3f}".replace("-", "\u2212")

        interval = "" if low is None else _INTERVALS[language].format(low=shown(low), high=shown(high))
        change = shown((primary["relative"] or 0) if is_loss else primary["delta"])
        text = _HEADS[primary["label"]][language] + (_FACTS[name][language] + _RECORD[language]).format(change=change, interval=interval, **facts)
        detectable = primary["minimal_detectable_delta"]
        if primary["label"] == "no_difference" and detectable and (primary["base"] > 0 or not is_loss):
            share = f"{100 * detectable / primary['base']:.1f}{sign}" if is_loss else f"{detectable:.3f}"
            text += _UNDETECTABLE[language].format(share=share)
        if primary["num_examples"] < caveats.FEW_TEST_ROWS:
            text += _TOO_FEW[language]
        texts.append(text)
    return {"en": texts[0], "zh": texts[1]}


def _percent(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "\u2212")


def finite(value: Any) -> Any:
    """The same value with NaN and infinities as None."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
