"""Whether a base model fits: a word on colour, and the sentence behind it. The same in the catalogue and in a new run."""

from __future__ import annotations

from danlu.services.platform.models import BaseModelChoice
from danlu.web import numbers
from danlu.web.components.elements import Tone, badge
from danlu.web.components.messages import in_language
from danlu.web.session import Session

TONES: dict[str, Tone] = {"fits": "good", "tight": "warn", "too_big": "bad"}


def fit_word(s: Session, base: BaseModelChoice) -> tuple[str, Tone]:
    """What the badge says, and its colour."""
    return (s.t("models.fit_unknown"), "") if base.fit is None else (s.t(f"models.fit_{base.fit}"), TONES[base.fit])


def fit_sentence(s: Session, base: BaseModelChoice) -> str:
    """What is needed against what is free, and what would help; or why that is not known."""
    if base.fit is None:
        parts = (base.problem.what, base.problem.why) if base.problem is not None else ()
        return ("；" if s.language == "zh" else "; ").join(in_language(s, text) for text in parts)
    told = s.t("models.fit_text", needed=numbers.size(base.needed_bytes), free=numbers.size(base.available_bytes))
    if base.fit != "too_big":
        return told
    way_out = s.t("models.fit_none")
    if base.alternative is not None:
        settings = ", ".join(f"{path} = {numbers.setting(value)}" for path, value in base.alternative.changes.items())
        way_out = s.t("models.fit_alternative", settings=settings)
    return told + ("" if s.language == "zh" else " ") + way_out


def facts(s: Session, base: BaseModelChoice) -> str:
    """Parameters, size and licence in one line."""
    known = [s.t("models.parameters", number=numbers.parameters(base.num_parameters))] if base.num_parameters is not None else []
    licence = s.t("models.licence", licence=base.licence) if base.licence else s.t("models.licence_unknown")
    return " \u00b7 ".join([*known, numbers.size(base.size_bytes), licence])


def fit_badge(s: Session, base: BaseModelChoice) -> None:
    """The badge with its sentence in a bubble; reached by keyboard too."""
    made = badge(*fit_word(s, base)).props("tabindex=0")
    made._props["data-tip"] = fit_sentence(s, base)
