"""Contract of the pages: the generated ones are up to date, the drawn tree is the real one, every bundled recipe validates."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from danlu.plugins import Registry
from danlu.recipe import base
from danlu.recipe.load import load_recipe
from danlu.recipe.recipe import Recipe

REPOSITORY = Path(__file__).parents[2]
RECIPES = sorted([*(REPOSITORY / "recipes").rglob("*.yaml"), *(REPOSITORY / "src/danlu/bundled").rglob("*.yaml")])
REGISTRIES = [value for value in vars(base).values() if isinstance(value, Registry)]


def test_the_generated_pages_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, REPOSITORY / "scripts/docs.py", "--check"], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")


def test_there_are_recipes_to_validate() -> None:
    assert len(RECIPES) >= 5


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_a_shipped_recipe_validates(file: Path) -> None:
    recipe = load_recipe([file])

    assert Recipe.model_validate(recipe.to_dict()).fingerprint == recipe.fingerprint


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.noun)
def test_everything_a_recipe_can_name_has_a_description_and_can_be_written_as_its_name(registry: Registry[BaseModel]) -> None:
    names = list(registry)

    assert names, f"no {registry.noun} is registered"
    for name in names:
        config = registry.parse(name)
        assert config.model_dump()["type"] == name
        assert (type(config).__doc__ or "").strip()


def fields_without_help(model: type[BaseModel], path: str = "") -> list[str]:
    """Paths of the settings under `model` whose effect nobody has written down."""
    missing = []
    for name, field in model.model_fields.items():
        is_part = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        if is_part and not any(isinstance(entry, Registry) for entry in field.metadata):
            missing += fields_without_help(field.annotation, f"{path}{name}.")
        elif not field.description and name not in ("type", "schema_version"):
            missing.append(path + name)
    return missing


def test_every_setting_has_its_help_text() -> None:
    plugins = [registry[name] for registry in REGISTRIES for name in registry]

    assert [path for model in [Recipe, *plugins] for path in fields_without_help(model, f"{model.__name__}.")] == []


def tree_of_the_page() -> set[str]:
    """Folders and modules named in the tree of docs/architecture.md, as paths below src/danlu."""
    block = (REPOSITORY / "docs/architecture.md").read_text("utf-8").split("```text\nsrc/danlu/\n")[1].split("```")[0]
    found, parents = set(), [""]
    for line in block.splitlines():
        match = re.match(r"( +)([\w.]+/?)", line)
        if match:
            depth = len(match[1]) // 2
            parents[depth:] = [parents[depth - 1] + match[2]]
            found.add(parents[depth])
    return found


def test_the_architecture_page_shows_the_tree_as_it_is() -> None:
    package = REPOSITORY / "src/danlu"
    folders = {f"{path.parent.relative_to(package)}/" for path in package.rglob("*/__init__.py")}
    modules = {path.name for path in package.glob("*.py")} - {"__main__.py"}

    drawn = tree_of_the_page()

    assert {entry for entry in drawn if entry.endswith("/")} == folders
    assert {entry for entry in drawn if "/" not in entry} == modules


PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))

    assert [target for target in targets if "://" not in target and not (page.parent / target).exists()] == []


def test_every_attack_is_listed_once_with_tests_that_exist() -> None:
    """Files stand in backquotes; other words of the last column are parts of the names of tests."""
    rows = re.findall(r"(?m)^\| (\d+)a? \|.*\| ([^|]+) \|$", (REPOSITORY / "docs" / "security.md").read_text("utf-8"))
    tests = "\n".join(path.read_text("utf-8") for path in (REPOSITORY / "tests").rglob("test_*.py"))
    names = re.findall(r"def (test_\w+)", tests)

    assert sorted({int(number) for number, _ in rows}) == list(range(1, 58))  # 44 of the plan, and what was found since
    words = {word for _, cell in rows for word in re.findall(r"\w+", re.sub(r"`[^`]*`|\(reads the source\)", "", cell))}
    assert [word for word in sorted(words) if not any(word in name for name in names)] == []
    files = {name for _, cell in rows for name in re.findall(r"`(\S+)`", cell)}
    assert [name for name in sorted(files) if not (REPOSITORY / "tests" / name).exists()] == []
