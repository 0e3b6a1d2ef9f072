"""Telling which dataset format a file is in, from its first rows, and whether the objective can use it."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from danlu.data.examples import ANSWERS, PROMPTS, READ_AS, Format, Kind, Row, find_column, nearest_name
from danlu.errors import FormatError
from danlu.recipe.base import FORMATS, FormatConfig

DETECT_ROWS = 100
SURE = 0.4
"""Least confidence of a format that is taken."""
OBJECTIVES_OF: dict[Kind, str] = {
    "messages": "{type: sft} (or grpo, which takes the answers as references)",
    "text": "{type: pretrain}",
    "preference": "{type: dpo} (or orpo, simpo, kto, reward; or sft, which trains on the chosen answers)",
    "labelled": "{type: kto} (or sft, which trains on the answers marked true)",
    "prompt": "{type: grpo}",
}
COLUMNS_OF: dict[Kind, str] = {
    "messages": "conversations or question-answer pairs",
    "text": "plain text (a `text` column or a .txt file)",
    "preference": "rows with `prompt`, `chosen` and `rejected`",
    "labelled": "rows with `prompt`, `completion` and `label` (true or false), or preference pairs",
    "prompt": "rows with `prompt`, and `answer` where a reward compares with one",
}


def choose_format(config: FormatConfig | str, rows: Sequence[Row], path: Path, needs: Kind | None = None) -> Format:
    """Return the format asked for, or the one that fits `rows` best; check that it gives what the objective needs.

    Raises:
        FormatError: no format fits, a column asked for is not there, or the objective cannot use it.
    """
    if isinstance(config, str):
        chosen = _detect(rows, path, needs)
    else:
        chosen = cast("Format", config)
        _check_columns(config, rows, path)
    if needs is not None and chosen.makes not in READ_AS[needs]:
        raise _unfit(chosen, needs, path)
    return chosen


def column_names(rows: Sequence[Row]) -> list[str]:
    """Names of all columns of `rows`, in order of appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def unused_columns(chosen: Format, rows: Sequence[Row]) -> list[str]:
    """Columns that the format does not read, though they hold something."""
    names = column_names(rows)
    used = chosen.columns(names)
    return [name for name in names if name not in used and any(row.get(name) not in (None, "", [], {}) for row in rows)]


def _detect(rows: Sequence[Row], path: Path, needs: Kind | None) -> Format:
    formats = [cast("Format", FORMATS.parse(name)) for name in FORMATS]
    # A prompt by itself is an example for one objective only; for the others its answer stands in a column of another name.
    known = (*PROMPTS, *ANSWERS)
    others = [name for name in column_names(rows) if find_column((name,), known) is None]
    takes_prompts = needs == "prompt" or (needs is None and _answer_column(others) is None)
    formats = [candidate for candidate in formats if takes_prompts or candidate.makes != "prompt"]
    scores = {candidate.type: candidate.detect(rows) for candidate in formats}
    formats.sort(key=lambda candidate: -scores[candidate.type])
    # A column of text can be asked and answered, or only read: what the objective needs decides.
    for candidate in formats:
        if needs == "text" == candidate.makes and scores[candidate.type] >= SURE and scores[formats[0].type] < 0.9:
            return candidate
        if needs == "prompt" == candidate.makes and scores[candidate.type] >= SURE:
            return candidate
    if not formats or scores[formats[0].type] < SURE:
        names = column_names(rows)
        raise FormatError(
            f"cannot tell the dataset format of {path}",
            why=f"columns found: {', '.join(names[:12]) or 'none'}; none of {', '.join(FORMATS)} fits",
            fix=_hint(names),
        )
    return formats[0]


def _hint(names: Sequence[str]) -> str:
    question = next((name for wanted in ("question", "prompt", "instruction", "问题") if (name := nearest_name(wanted, names))), None)
    prompt, completion = question or "<column of the prompt>", _answer_column([name for name in names if name != question]) or "<column of the answer>"
    return f"say which columns to use: data.format: {{type: prompt_completion, prompt: {prompt}, completion: {completion}}}"


def _answer_column(names: Sequence[str]) -> str | None:
    """The column that is called most like an answer."""
    return next((name for wanted in ("answer", "completion", "output", "答案") if (name := nearest_name(wanted, names))), None)


def _check_columns(config: FormatConfig, rows: Sequence[Row], path: Path) -> None:
    names = column_names(rows)
    plain = {name.strip().lower() for name in names}
    for field in config.model_fields_set - {"type"}:
        wanted = getattr(config, field)
        if wanted == type(config).model_fields[field].default:
            continue  # a resolved recipe says everything; only what differs was chosen by somebody
        if isinstance(wanted, str) and wanted.strip().lower() not in plain:
            near = nearest_name(wanted, names)
            raise FormatError(
                f"{path} has no column {wanted!r}, which data.format.{field} names",
                why=f"columns found: {', '.join(names[:20]) or 'none'}",
                fix=f"set data.format.{field} to {near!r}" if near else f"set data.format.{field} to one of them",
            )
    chosen = cast("Format", config)
    if not chosen.detect(rows):
        raise FormatError(
            f"no row at the start of {path} is of format {config.type}",
            why=f"columns found: {', '.join(names[:20]) or 'none'}",
            fix="leave out data.format (it is told from the content), or name the columns in it",
        )


def _unfit(chosen: Format, needs: Kind, path: Path) -> FormatError:
    return FormatError(
        f"{path} holds {chosen.makes if chosen.makes != 'text' else 'plain text'} (format {chosen.type}), but the objective needs {needs}",
        why="an objective can only learn from its own kind of example",
        fix=f"use objective: {OBJECTIVES_OF[chosen.makes]}, or give {COLUMNS_OF[needs]}",
    )
