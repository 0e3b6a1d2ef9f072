"""Contract of the architecture: layers, what is imported when, names, sizes, nothing of one machine in the repository."""

import ast
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

import danlu

REPOSITORY = Path(__file__).parents[2]
HEAVY = ("matplotlib", "pandas", "peft", "polars", "pyarrow", "scipy", "sklearn", "torch", "transformers")


def python(code: str, **environment: str) -> str:
    """Run `code` in a fresh interpreter and return what it prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | environment).stdout


def test_imports_follow_the_layers() -> None:
    done = subprocess.run([Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("module", ["danlu", "danlu.cli.main", "danlu.recipe.load", "danlu.services.runs", "danlu.data", "danlu.plugins"])
def test_the_control_plane_starts_without_heavy_packages(module: str) -> None:
    loaded = json.loads(python(f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"))

    assert [name for name in HEAVY if name in loaded] == []


def test_validating_a_recipe_loads_every_plugin_without_torch() -> None:
    code = """
import json, sys
from danlu.recipe.recipe import Recipe
from danlu.recipe import base
from danlu.plugins import Registry
names = [name for value in vars(base).values() if isinstance(value, Registry) for name in value]
Recipe(base_model="danlu/tiny", dataset="danlu/zhangjiajie")
print(json.dumps([len(names), sorted(sys.modules)]))
"""
    count, loaded = json.loads(python(code))

    assert count > 10
    assert [name for name in ("matplotlib", "peft", "scipy", "sklearn", "torch", "transformers") if name in loaded] == []


def test_help_is_quick() -> None:
    """The goal is 0.5 s on an idle machine. Seconds that it computes are counted, not those that it waits on a busy one."""

    def computed() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    seconds = []
    for _ in range(3):
        before = computed()
        done = subprocess.run([sys.executable, "-m", "danlu", "--help"], capture_output=True, text=True, check=True)
        seconds.append(computed() - before)

    print(f"danlu --help: median {statistics.median(seconds):.2f} s of {[round(value, 2) for value in seconds]}")
    assert "run" in done.stdout
    assert statistics.median(seconds) < 1.5


def test_the_public_names_are_these() -> None:
    assert danlu.__all__ == ["DanluError", "Recipe", "Studio", "__version__", "list_runs", "load_recipe", "report", "resume", "run"]
    assert all(getattr(danlu, name).__doc__ for name in danlu.__all__)


def test_the_version_is_the_one_of_the_package() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))

    assert danlu.__version__ == project["project"]["version"]


def sources() -> list[Path]:
    """Python files of the package."""
    return sorted((REPOSITORY / "src/danlu").rglob("*.py"))


@cache
def trees() -> dict[str, ast.Module]:
    """What stands in each of them, read once."""
    return {str(path.relative_to(REPOSITORY)): ast.parse(path.read_text("utf-8")) for path in sources()}


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    banned = {"utils", "util", "helpers", "helper", "common", "misc", "manager"}

    assert [path.name for path in sources() if path.stem in banned or path.parent.name in banned] == []


def test_every_module_says_what_it_is_for() -> None:
    assert [name for name, tree in trees().items() if not ast.get_docstring(tree)] == []


def test_files_stay_readable() -> None:
    # A migration is a list of columns, written once.
    lengths = {str(path.relative_to(REPOSITORY)): len(path.read_text("utf-8").splitlines()) for path in sources() if path.parent.name != "versions"}

    assert {name: length for name, length in lengths.items() if length > 500} == {}


def swallows_everything(handler: ast.ExceptHandler) -> bool:
    """Whether it catches every exception and does not raise it (or another one) again at its end."""
    caught = [handler.type, *getattr(handler.type, "elts", [])]
    is_blanket = handler.type is None or any(getattr(name, "id", "") in ("Exception", "BaseException") for name in caught)
    return is_blanket and not isinstance(handler.body[-1], ast.Raise)


def test_a_blanket_except_stands_only_at_the_door() -> None:
    found = {name for name, tree in trees().items() for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and swallows_everything(node)}

    # Last handlers: of the doors REST and command line, of a job's process, and of the worker's chores. Each logs or tells what it met.
    assert found == {"src/danlu/api/traffic.py", "src/danlu/cli/main.py", "src/danlu/worker/child.py", "src/danlu/worker/housekeeping.py"}


def committed_text() -> dict[str, str]:
    """Text files under version control (or, outside a clone, in the folders that would be)."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True)
    names = (
        listing.stdout.split("\0")
        if listing.returncode == 0
        else [str(path) for folder in ("src", "tests", "docs") for path in (REPOSITORY / folder).rglob("*")]
    )
    texts = {}
    for name in filter(None, names):
        path = REPOSITORY / name
        if path.is_file() and path.suffix not in (".safetensors", ".png", ".xlsx", ".parquet"):
            texts[name] = path.read_text("utf-8", errors="replace")
    return texts


def test_no_committed_file_names_a_folder_or_an_index_of_one_machine() -> None:
    pattern = re.compile(r"(?<![\w.])/(?:work|opt|root)/\w|file:///|--(?:extra-)?index-url|--find-links|find-links\s*=")

    hits = [f"{name}: {match[0]}" for name, text in committed_text().items() if name != "tests/contracts/test_layers.py" for match in pattern.finditer(text)]

    assert hits == []


def test_the_lock_files_are_complete_pinned_and_free_of_cuda() -> None:
    for name in ("runtime", "dev"):
        lines = [line for line in (REPOSITORY / f"requirements/{name}.txt").read_text("utf-8").splitlines() if not line.startswith("#")]
        assert [line for line in lines if not re.match(r"[a-z0-9-]+==\S+( ; .+?)?\s+# via ", line)] == []
        assert [line for line in lines if line.startswith(("nvidia-", "cuda-", "triton"))] == []


def test_every_declared_dependency_is_locked() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
    extras = project["project"]["optional-dependencies"]
    everything = re.findall(r"\w+", extras["all"][0].split("[")[1])
    declared = [*project["project"]["dependencies"], *(entry for name in everything for entry in extras[name])]
    locked = {line.split("==")[0] for line in (REPOSITORY / "requirements/runtime.txt").read_text("utf-8").splitlines()}

    assert {re.split(r"[^\w-]", entry)[0] for entry in declared} - {"danlu"} - locked == set()


def imported_packages() -> set[str]:
    """Third-party packages that the code of the package imports anywhere, also inside functions."""
    names: set[str] = set()
    for tree in trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    # pydantic_core and markupsafe are parts of pydantic and jinja2 and come in the version these ask for.
    return names - set(sys.stdlib_module_names) - {"danlu", "markupsafe", "pydantic_core"}


def test_what_is_declared_is_imported_and_what_is_imported_is_declared() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    declared = [*project["dependencies"], *(entry for extra in project["optional-dependencies"].values() for entry in extra)]
    # SQLAlchemy imports the driver that a database URL names, fsspec the package of most artifact URLs.
    loaded_by_name = {"psycopg", "adlfs", "s3fs"}
    names = {re.split(r"[^\w-]", entry)[0].replace("-", "_") for entry in declared} - {"danlu"} - loaded_by_name

    assert {{"pyyaml": "yaml", "mlflow_skinny": "mlflow"}.get(name, name) for name in names} == imported_packages()


def test_no_two_test_modules_share_a_name() -> None:
    """pytest imports them by their names alone, and refuses to collect anything when two are the same."""
    names = [path.name for path in (REPOSITORY / "tests").rglob("*.py") if path.name != "conftest.py"]

    assert sorted(name for name in set(names) if names.count(name) > 1) == []
