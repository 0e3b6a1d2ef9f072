"""Write the generated pages of docs/ from the code: errors, recipe, JSON Schema, command line, REST (OpenAPI and a page).

`python scripts/docs.py` writes them; with `--check` it writes nothing and exits with 1 when one is out of date.
What only some installations have (plugins of other packages) is left out, so that the pages depend on this repository alone.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from danlu import errors
from danlu.api.app import describe
from danlu.errors.chinese.codes import CODES
from danlu.plugins import Registry
from danlu.recipe import base
from danlu.recipe.recipe import Recipe

DOCS = Path(__file__).parent.parent / "docs"
NOTE = "<!-- Written by scripts/docs.py (make docs). Do not edit. -->\n"
REGISTRIES = [value for value in vars(base).values() if isinstance(value, Registry)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a page is out of date")
    check = parser.parse_args().check
    written = pages()
    stale = [name for name, content in written.items() if not (DOCS / name).is_file() or (DOCS / name).read_text("utf-8") != content]
    for name in stale:
        if check:
            print(f"docs/{name} is out of date; run `make docs` and commit the result", file=sys.stderr)
        else:
            (DOCS / name).write_text(written[name], "utf-8")
            print(f"docs/{name} written")
    return 1 if check and stale else 0


def pages() -> dict[str, str]:
    """Return the content of every generated page by its name in docs/."""
    schema = json.dumps(Recipe.model_json_schema(), indent=2, ensure_ascii=False) + "\n"
    described = describe()
    rest = {"openapi.json": json.dumps(described, indent=1, ensure_ascii=False, sort_keys=True) + "\n", "rest.md": rest_page(described)}
    return {
        "errors.md": errors_page(),
        "errors.zh-CN.md": errors_page_in_chinese(),
        "recipe.md": recipe_page(),
        "recipe.schema.json": schema,
        "cli.md": cli_page(),
        **rest,
    }


# --- errors


def error_classes(root: type[errors.DanluError] = errors.DanluError) -> Iterator[type[errors.DanluError]]:
    """Yield `root` and everything below it that danlu.errors defines, parents first."""
    if root.__module__.startswith(errors.__name__):
        yield root
        for child in root.__subclasses__():
            yield from error_classes(child)


def errors_page() -> str:
    """One section per error class: its code (the anchor), what it means, why it exists, what to do."""
    lines = [NOTE, "# Errors", "", "[中文](errors.zh-CN.md)", ""]
    lines += ["Every error says what happened, why, and what to do, and carries a code that does not change between versions.", ""]
    lines += ["| code | class | is also | exit code | HTTP status |", "|---|---|---|--:|--:|"]
    classes = sorted(error_classes(), key=lambda cls: cls.code)
    for cls in classes:
        also = ", ".join(f"`{parent.__name__}`" for parent in cls.__bases__ if parent is not Exception)
        lines.append(f"| [{cls.code}](#{cls.code.lower()}) | `{cls.__name__}` | {also} | {cls.exit_code} | {cls.http_status} |")
    for cls in classes:
        what, *rest = inspect.getdoc(cls).split("\n")  # type: ignore[union-attr]  # a test demands the docstring
        lines += ["", f"## {cls.code}", "", f"`{cls.__name__}`: {what}", ""]
        lines += [f"- **{line.split(':', 1)[0]}:**{line.split(':', 1)[1]}" for line in rest if line.strip()]
    return "\n".join(lines) + "\n"


def errors_page_in_chinese() -> str:
    """The same in Chinese."""
    lines = [NOTE, "# 错误", "", "[English](errors.md)", ""]
    lines += ["每个错误都说明发生了什么、为什么、怎么办，并带有不随版本改变的编号。工作室的中文页面和中文终端用中文说明错误，并保留英文原文。", ""]
    lines += ["| 编号 | 含义 | 退出码 | HTTP 状态 |", "|---|---|--:|--:|"]
    classes = sorted(error_classes(), key=lambda cls: cls.code)
    for cls in classes:
        lines.append(f"| [{cls.code}](#{cls.code.lower()}) | {CODES[cls.code].title} | {cls.exit_code} | {cls.http_status} |")
    for cls in classes:
        words = CODES[cls.code]
        lines += ["", f"## {cls.code}", "", f"`{cls.__name__}`：{words.title}。", "", f"- **原因：** {words.why}", f"- **解决：** {words.fix}"]
    return "\n".join(lines) + "\n"


# --- recipe


def recipe_page() -> str:
    """One table per part of the recipe, then one per registered method, objective, metric, ..."""
    lines = [NOTE, "# The recipe", "", "Everything that determines one run. The same fields are the YAML file, the command line", ""]
    lines[-2] += " (`danlu run recipe.yaml --optim.learning_rate 1e-4`)"
    lines[-2] += " and [recipe.schema.json](recipe.schema.json). Unknown fields are errors. `auto` is filled in before the run, each with its reason."
    for path, model in parts(Recipe):
        lines += [f"## {path or 'recipe'}", "", summary(model), "", *table(model, path), ""]
    for registry in REGISTRIES:
        lines += [
            f"## {registry.noun}",
            "",
            f"Written as `{{type: NAME, ...}}` or, with its defaults, as `NAME`. A package can add one: entry-point group `{registry.package}`.",
            "",
        ]
        for name in own_names(registry):
            lines += [f"### {name}", "", summary(registry[name]), ""]
            if set(registry[name].model_fields) - {"type"}:
                lines += [*table(registry[name], ""), ""]
    return "\n".join(lines)


def own_names(registry: Registry[Any]) -> list[str]:
    """Return the names that this repository registers."""
    return [name for name in registry if registry[name].__module__.startswith(f"{registry.package}.")]


def parts(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield (dotted path, class) of `model` and of every plain model nested in it."""
    yield path, model
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel) and not registry_of(field.metadata):
            yield from parts(field.annotation, f"{path}.{name}".lstrip("."))


def table(model: type[BaseModel], path: str) -> list[str]:
    """Markdown table of the fields of `model`."""
    rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if name == "type":
            continue
        annotation: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
        here = f"{path}.{name}".lstrip(".")
        kind = f"[{here}](#{here.replace('.', '')})" if is_part(field) else type_name(annotation)
        rows.append(f"| `{name}` | {kind} | {default(field)} | {help_text(field)} |".replace(" |  |", " | |"))
    return rows


def is_part(field: FieldInfo) -> bool:
    """Whether the field is a nested model with a section of its own."""
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel) and not registry_of(field.metadata)


def registry_of(metadata: Any) -> Registry[Any] | None:
    """Return the registry among the metadata of an annotation."""
    return next((entry for entry in metadata if isinstance(entry, Registry)), None)


def summary(model: type[BaseModel]) -> str:
    """First paragraph of the docstring, on one line."""
    return " ".join((inspect.getdoc(model) or "").split("\n\n")[0].split())


def help_text(field: FieldInfo) -> str:
    """The field's docstring, or that of the part it holds."""
    text = field.description or (summary(field.annotation) if is_part(field) else "")  # type: ignore[arg-type]
    return " ".join(text.split()).replace("|", "\\|")


def default(field: FieldInfo) -> str:
    """The default as it would be written in YAML."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True) if is_part(field) is False else PydanticUndefined
    return "" if value is PydanticUndefined else f"`{json.dumps(value, ensure_ascii=False)}`".replace('"', "")


def type_name(annotation: Any) -> str:
    """An annotation in words: `integer >= 1 or auto`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        registry = registry_of(arguments[1:])
        if registry:
            return f"[{registry.noun}](#{registry.noun.replace(' ', '-')})"
        first, *others = type_name(arguments[0]).split(" or ")
        return " or ".join([" ".join([first, *constraints(arguments[1:])]), *others])
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(argument) for argument in arguments)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is list:
        return f"list of {type_name(arguments[0])}"
    if origin is dict:
        return f"mapping of {type_name(arguments[0])} to {type_name(arguments[1])}"
    return {str: "text", int: "integer", float: "number", bool: "`true` or `false`", type(None): "`null`"}.get(
        annotation, getattr(annotation, "__name__", str(annotation))
    )


def constraints(metadata: Any) -> Iterator[str]:
    """Yield the bounds among the metadata of an annotation, such as `>= 1`."""
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "min_length": "length >=", "max_length": "length <="}
    for entry in metadata:
        if isinstance(entry, FieldInfo):
            yield from constraints(entry.metadata)
        else:
            yield from (f"{sign} {getattr(entry, name)}" for name, sign in signs.items() if getattr(entry, name, None) is not None)


# --- REST

REST_INTRODUCTION = """Everything below `/api/v1`; [openapi.json](openapi.json) has the same for programs, and the server offers it at `/api/v1/openapi.json`.

- **Who asks:** `Authorization: Bearer dl_...` (an API key) or the session of the studio. On the machine itself, before there are users, nothing is needed.
- **Errors** are `application/problem+json` (RFC 9457) with `code`, `detail`, `why`, `fix`, `request_id`; the codes are in
  [errors.md](errors.md). A request with mistakes gets all of them in `errors`, each with its place.
- **Lists** come in pages: `limit`, then `after` with the `next` of the answer (also as a `Link` header).
- **ETags:** send one back as `If-None-Match` and get 304 when nothing has changed; as `If-Match` with a change, and get 412 when somebody else was faster.
- **Idempotency-Key** (any POST that changes something): sent again with the same key, a request is not done twice and gets the same answer. A key is good for
  24 hours and one request.
- **Streams** are server-sent events; `Last-Event-ID` goes on where the connection was cut.
- **Downloads** understand `Range` and `If-Range`.
"""


def rest_page(described: dict[str, Any]) -> str:
    """One section per noun, one row per operation, then what each takes and answers."""
    operations = [(verb.upper(), path, entry) for path, verbs in described["paths"].items() for verb, entry in verbs.items()]
    lines = [NOTE, "# REST", "", REST_INTRODUCTION]
    for noun in sorted({entry["tags"][0] for _, _, entry in operations}):
        lines += [f"## {noun}", "", "| operation | | needs | takes | answers |", "|---|---|---|---|---|"]
        for verb, path, entry in operations:
            if entry["tags"][0] == noun:
                lines.append(operation_row(verb, path, entry))
        lines.append("")
    lines += ["## Bodies and answers", ""]
    for name, schema in described["components"]["schemas"].items():
        lines += schema_section(name, schema)
    return "\n".join(lines).rstrip() + "\n"


def operation_row(verb: str, path: str, entry: dict[str, Any]) -> str:
    """One row: name and address, what it does, who may, its options and body, its answer."""
    options = [f"`{parameter['name']}`" for parameter in entry.get("parameters", []) if parameter["in"] == "query"]
    body = [schema_name(part["schema"]) for part in entry.get("requestBody", {}).get("content", {}).values()]
    code, answer = next((code, found) for code, found in entry["responses"].items() if code not in ("304", "default"))
    answers = {schema_name(part.get("schema", {})) for part in answer.get("content", {}).values()} or {"nothing"}
    summary = entry["summary"].replace("|", "\\|")
    address = f"`{verb} {path.removeprefix('/api/v1')}`<br>`{entry['operationId']}`"
    return f"| {address} | {summary} | {entry.get('x-right', '')} | {', '.join(body + options)} | {code}: {', '.join(sorted(answers))} |"


def schema_section(name: str, schema: dict[str, Any]) -> list[str]:
    """A table of the fields of one body or answer."""
    lines = [f"### {name}", "", *([schema["description"], ""] if schema.get("description") else [])]
    rows = schema.get("properties", {})
    if rows:
        lines += ["| field | type | |", "|---|---|---|"]
        required = set(schema.get("required", []))
        for field, facts in rows.items():
            meaning = " ".join(facts.get("description", "").split()).replace("|", "\\|")
            lines.append(f"| `{field}`{'' if field in required else ' (optional)'} | {schema_name(facts)} | {meaning} |")
        lines.append("")
    return lines


def schema_name(schema: dict[str, Any]) -> str:
    """Name a JSON Schema as people say it."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(schema_name(part) for part in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("format") == "binary":
        return "the file"
    if schema.get("type") == "array":
        return f"list of {schema_name(schema.get('items', {}))}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"mapping to {schema_name(schema['additionalProperties'])}"
    names = {"string": "text", "integer": "integer", "number": "number", "boolean": "`true` or `false`", "null": "`null`", "object": "mapping"}
    return names.get(schema.get("type", ""), "any value")


# --- command line

GENERATED = "On this machine's home folder, or with `--server` on a studio. `{} COMMAND --help` has the arguments; each command takes `--json`."


def cli_page() -> str:
    """One section per command: usage, what it does, its arguments and options."""
    from typer.main import get_command

    from danlu.cli.main import app
    from danlu.cli.nouns import NounGroup

    lines = [NOTE, "# The command line", ""]
    for path, command in commands(get_command(app), ("danlu",)):
        lines += [f"## {' '.join(path)}", "", " ".join((command.help or "").split()), ""]
        if isinstance(command, NounGroup):
            children = ((name, command.get_command(None, name)) for name in command.list_commands(None))
            lines += [
                GENERATED.format(" ".join(path)),
                "",
                "| | |",
                "|---|---|",
                *(f"| `{name}` | {child.get_short_help_str(200)} |" for name, child in children),
                "",
            ]
        rows = [parameter_row(parameter) for parameter in command.params if not getattr(parameter, "hidden", False)]
        if rows:
            lines += ["| | | |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield (words, command) of a command tree, parents first."""
    from danlu.cli.nouns import NounGroup

    yield path, command
    if not isinstance(command, NounGroup):
        for name, child in getattr(command, "commands", {}).items():
            yield from commands(child, (*path, name))


def parameter_row(parameter: Any) -> str:
    """One row: how it is written, what it means, its default."""
    if parameter.param_type_name == "argument":
        written = f"`{(parameter.metavar or parameter.name).upper()}`"
    else:
        written = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    fallback = parameter.default
    shown = "required" if parameter.required else "" if fallback in (None, False, "", (), []) or callable(fallback) else f"default `{fallback}`"
    meaning = " ".join((getattr(parameter, "help", None) or "").split()).replace("|", "\\|")
    return f"| {written} | {meaning} | {shown} |"


if __name__ == "__main__":
    sys.exit(main())
