"""Attacks through data files and names (docs/security.md, "Files"): each test fails when its guard is removed."""

import ast
import gzip
import json
import os
import tarfile
import time
import zipfile
from pathlib import Path

import openpyxl
import pyarrow
import pytest
from pyarrow import parquet

from danlu.data import json_rows, sources
from danlu.data.json_rows import Unreadable
from danlu.data.read import open_rows
from danlu.data.table_of_rows import LOCK, index_rows, read_page
from danlu.errors import DataError, FormatError, RecipeError, UnknownNameError
from danlu.recipe.load import read_yaml, validate
from danlu.text import printable


def sources_of_danlu(repository: Path) -> dict[str, ast.Module]:
    return {str(path): ast.parse(path.read_text("utf-8")) for path in (repository / "src/danlu").rglob("*.py")}


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def test_nothing_in_danlu_unpickles_unpacks_archives_or_evaluates_text(repository: Path) -> None:
    """No archive is ever unpacked and no pickle ever read: what is not there cannot be attacked."""
    forbidden = {
        "eval",
        "exec",
        "pickle.load",
        "pickle.loads",
        "torch.load",
        "joblib.load",
        "marshal.loads",
        "os.system",
        "tarfile.open",
        "shutil.unpack_archive",
        "importlib.import_module",
    }
    endings = (".extractall", ".extract", "load_from_disk", "load_dataset")
    allowed = {("plugins.py", "importlib.import_module"), ("run.py", "importlib.import_module"), ("operations.py", "import_module")}
    found = set()
    for path, tree in sources_of_danlu(repository).items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = called(node)
                options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                if name in forbidden or name.endswith(endings):
                    found.add((Path(path).name, name))
                for option, value in (("allow_pickle", "True"), ("shell", "True"), ("trust_remote_code", "True")):
                    if options.get(option) == value:
                        found.add((Path(path).name, option))
                if name.endswith("yaml.load") and options.get("Loader") != "_StrictLoader":
                    found.add((Path(path).name, name))

    assert found - allowed == set()


def test_a_gzip_bomb_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "FREE_EXPANSION_BYTES", 3_000_000)
    row = b'{"question": "a", "answer": "' + b"b" * 1000 + b'"}\n'
    (tmp_path / "bomb.jsonl.gz").write_bytes(gzip.compress(row * 20_000))
    (tmp_path / "fair.jsonl.gz").write_bytes(gzip.compress(row * 2_000))

    with pytest.raises(DataError, match="unpacks to far more"):
        index_rows(tmp_path / "bomb.jsonl.gz", tmp_path / "table")
    assert [path.name for path in (tmp_path / "table").iterdir()] == [LOCK]
    assert index_rows(tmp_path / "fair.jsonl.gz", tmp_path / "table") == 2_000


def test_a_parquet_bomb_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "FREE_EXPANSION_BYTES", 50_000_000)
    table = pyarrow.table({"text": pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 3000, pyarrow.int32()), pyarrow.array(["x" * 5_000_000]))})
    parquet.write_table(table, tmp_path / "bomb.parquet", compression="zstd")

    seen = 0
    with pytest.raises(DataError, match="unpacks to far more"):
        for _ in open_rows(tmp_path / "bomb.parquet").entries:
            seen += 1
    assert seen <= 10


def test_a_cell_in_the_last_column_does_not_widen_every_row(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(["question", "answer"])
    book.active.append(["a", "b"])
    book.active["XFD200000"] = "far"
    book.save(tmp_path / "a.xlsx")
    start = time.process_time()
    stream = open_rows(tmp_path / "a.xlsx")

    assert [row for _, row, _ in stream.entries][0] == {"question": "a", "answer": "b"}
    assert "many_columns" in {warning.kind for warning in stream.warnings}
    assert time.process_time() - start < 60, "without the guard some 10 minutes"


def test_entities_of_a_workbook_do_not_multiply(tmp_path: Path) -> None:
    openpyxl.Workbook().save(tmp_path / "plain.xlsx")
    entities = '<!ENTITY l0 "lolololol">' + "".join(f'<!ENTITY l{k} "{f"&l{k - 1};" * 10}">' for k in range(1, 12))
    name = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    cell = '<row r="1"><c t="inlineStr"><is><t>&l11;</t></is></c></row>'
    sheet = f'<?xml version="1.0"?><!DOCTYPE x [{entities}]><worksheet xmlns="{name}"><sheetData>{cell}</sheetData></worksheet>'
    with zipfile.ZipFile(tmp_path / "plain.xlsx") as plain, zipfile.ZipFile(tmp_path / "bomb.xlsx", "w") as bomb:
        for info in plain.infolist():
            bomb.writestr(info.filename, sheet if info.filename.endswith("sheet1.xml") else plain.read(info))

    with pytest.raises(DataError, match="damaged workbook"):
        list(open_rows(tmp_path / "bomb.xlsx").entries)


def test_a_workbook_that_unpacks_to_gigabytes_is_refused_by_its_directory(tmp_path: Path) -> None:
    openpyxl.Workbook().save(tmp_path / "plain.xlsx")
    content = bytearray((tmp_path / "plain.xlsx").read_bytes())
    place = content.rindex(b"xl/workbook.xml") - 46
    content[place + 24 : place + 28] = (3 * 1024**3).to_bytes(4, "little")
    (tmp_path / "bomb.xlsx").write_bytes(content)

    with pytest.raises(DataError, match="would unpack to"):
        list(open_rows(tmp_path / "bomb.xlsx").entries)


@pytest.mark.parametrize("make", ["zip", "tar", "nested zip"])
def test_archives_are_refused_not_unpacked(tmp_path: Path, make: str) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    path = tmp_path / f"archive.{'tar' if make == 'tar' else 'zip'}"
    if make == "tar":
        with tarfile.open(path, "w") as tar:
            tar.add(tmp_path / "rows.jsonl", "../../escaped.jsonl")
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("../../escaped.jsonl", "{}")
            archive.writestr("C:\\nul\\con.jsonl", "{}")
    if make == "nested zip":
        with zipfile.ZipFile(tmp_path / "outer.zip", "w") as outer:
            outer.write(path, "inner.zip")
        path = tmp_path / "outer.zip"

    with pytest.raises((FormatError, DataError)):
        list(open_rows(path).entries)
    assert not list(tmp_path.parent.parent.glob("escaped*")) and not list(tmp_path.parent.glob("escaped*"))


def test_one_line_without_end_costs_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tracemalloc

    monkeypatch.setattr(json_rows, "MAX_ROW_BYTES", 1 << 20)
    with (tmp_path / "a.jsonl").open("wb") as file:
        file.write(b'{"question": "a", "answer": "b"}\n{"question": "')
        for _ in range(64):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n{"question": "c", "answer": "d"}\n')
    tracemalloc.start()
    rows = [row for _, row, _ in open_rows(tmp_path / "a.jsonl").entries]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert [isinstance(row, Unreadable) for row in rows] == [False, True, False]
    assert peak < 16 << 20


@pytest.mark.parametrize("depth", [300, 900, 5_000, 200_000])
def test_nesting_is_a_bad_row_and_not_a_crash(tmp_path: Path, depth: int) -> None:
    deep = b'{"a":' * depth + b"1" + b"}" * depth
    (tmp_path / "a.jsonl").write_bytes(b'{"question": "a", "answer": "b"}\n' + deep + b"\n" + b'{"question": "c", "answer": "d"}\n')

    rows = [row for _, row, _ in open_rows(tmp_path / "a.jsonl").entries]
    assert [isinstance(row, Unreadable) for row in rows] == [False, True, False]
    assert index_rows(tmp_path / "a.jsonl", tmp_path / "table") == 3 == read_page(tmp_path / "table", offset=0, limit=9).total


def test_numbers_of_a_million_digits_and_nan_are_rows_like_others(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"n": ' + b"9" * 1_000_000 + b'}\n{"n": NaN}\n{"n": 1e999999}\n{"n": -Infinity}\n')
    start = time.process_time()

    index_rows(tmp_path / "a.jsonl", tmp_path / "table")
    page = read_page(tmp_path / "table", offset=0, limit=9)

    assert page.total == 4 and len(json.dumps([row.row for row in page.items])) < 100_000
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    "text",
    [
        "dataset: !!python/object/apply:os.system ['touch pwned']\n",
        "dataset: !!python/name:os.system\n",
        "dataset: !!python/module:os\n",
        "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(f"b{n}: &b{n} [{', '.join(['*' + ('a' if n == 0 else f'b{n - 1}')] * 9)}]\n" for n in range(12)),
        "a: &a\n  b: *a\n",
        "x: " + "{a: " * 3000 + "1" + "}" * 3000,
    ],
    ids=["apply", "name", "module", "billion laughs", "recursive", "deep"],
)
def test_a_recipe_cannot_run_code_or_multiply(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    start = time.process_time()

    with pytest.raises(RecipeError):
        read_yaml(tmp_path / "recipe.yaml")
    assert time.process_time() - start < 10 and not Path("pwned").exists()


@pytest.mark.parametrize("field", ["method", "objective"])
def test_a_recipe_names_nothing_that_is_imported(field: str) -> None:
    values = {"base_model": "danlu/tiny", "dataset": "danlu/zhangjiajie", field: {"type": "os.system"}}

    with pytest.raises((RecipeError, UnknownNameError), match="unknown"):
        validate(values, source="test")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("data.py", b"import os\nos.system('touch pwned')\n"),
        ("model.gguf", b"GGUF\x03\x00\x00\x00" + (2**63 - 1).to_bytes(8, "little") * 2),
        ("picture.png", b"\x89PNG\r\n\x1a\n" + (2**31 - 1).to_bytes(4, "big") * 4),
        ("data.arrow", b"ARROW1\x00\x00" + b"\xff" * 64),
        ("rows.pkl", b"\x80\x04\x95" + b"cos\nsystem\n(S'touch pwned'\ntR." * 3),
        ("weights.safetensors", (2**62).to_bytes(8, "little") + b"{}" * 50),
    ],
)
def test_other_files_are_not_taken_for_data(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    try:
        rows = [row for _, row, _ in open_rows(tmp_path / name).entries]
    except DataError:
        rows = []

    assert not [row for row in rows if not isinstance(row, Unreadable) and set(row) - {"text"}] and not Path("pwned").exists()


def test_a_folder_with_a_state_file_or_a_script_is_no_dataset(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../../../etc/passwd"}]}))
    (folder / "data.py").write_text("raise SystemExit")

    with pytest.raises(DataError, match="is a folder"):
        open_rows(folder)


def test_a_pipe_or_a_device_is_no_data_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.jsonl")

    for path in (tmp_path / "rows.jsonl", Path("/dev/zero")):
        with pytest.raises(DataError):
            open_rows(path)


def test_a_file_name_or_a_row_cannot_steer_a_terminal() -> None:
    shown = printable("\x1b[2J\x1b]0;title\x07 \x9b31m \u202e \x00 ok")

    assert not [character for character in shown if ord(character) < 32 or 0x7F <= ord(character) < 0xA0 or character == "\u202e"]
