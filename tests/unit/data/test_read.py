"""Every kind of file, good and bad, as a stream of rows."""

import gzip
import io
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from danlu.data import json_rows
from danlu.data.json_rows import Unreadable, parse_row, split_values
from danlu.data.read import open_rows
from danlu.errors import DataError, FormatError

ROWS = [{"prompt": "你好", "completion": "您好！"}, {"prompt": "1+1", "completion": "2"}]
JSONL = '{"prompt": "你好", "completion": "您好！"}\n{"prompt": "1+1", "completion": "2"}\n'


def entries(tmp_path: Path, content: bytes, name: str) -> list[tuple[int, Any, tuple[str, ...]]]:
    path = tmp_path / name
    path.write_bytes(content)
    return [(line, row.reason if isinstance(row, Unreadable) else row, fixes) for line, row, fixes in open_rows(path).entries]


def rows(tmp_path: Path, content: bytes, name: str) -> list[Any]:
    return [row for _, row, _ in entries(tmp_path, content, name)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", JSONL.encode()),
        ("a.jsonl", b"\xef\xbb\xbf" + JSONL.encode()),
        ("a.jsonl", JSONL.replace("\n", "\r\n\r\n").encode()),
        ("a.json", JSONL.encode()),
        ("a", JSONL.encode()),
        ("a.jsonl.gz", gzip.compress(JSONL.encode(), mtime=0)),
        ("a.json", ("[" + JSONL.replace("}\n{", "},\n{") + "]").encode()),
        ("a.jsonl", ("[" + JSONL.replace("}\n{", "},\n{") + "]").encode()),
        ("a.json", ('{"version": 1, "data": [' + JSONL.replace("}\n{", "},\n{") + "]}").encode()),
        ("a.json", ('{"meta": {"n": [1]}, "whatever": [' + JSONL.replace("}\n{", "},\n{") + "]}").encode()),
        ("a.json", JSONL.replace("{", "{\n  ").replace('",', '",\n  ').encode()),
        ("a.json", '{"prompt": ["你好", "1+1"], "completion": ["您好！", "2"]}'.encode()),
        ("a.json", '{"prompt": {"0": "你好", "1": "1+1"}, "completion": {"0": "您好！", "1": "2"}}'.encode()),
        ("a.json", ('{"0": ' + JSONL.replace("}\n{", '},\n"1": {') + "}").encode()),
        ("a.csv", "prompt,completion\n你好,您好！\n1+1,2\n".encode()),
        ("a.csv", "prompt;completion\r\n你好;您好！\r\n\r\n1+1;2".encode()),
        ("a.tsv", "prompt\tcompletion\n你好\t您好！\n1+1\t2\n".encode()),
        ("a.csv", "prompt,completion\n你好,您好！\n1+1,2\n".encode("gb18030")),
        ("a.csv", "prompt,completion\n你好,您好！\n1+1,2\n".encode("utf-16")),
        ("a.csv", "prompt,completion,\n你好,您好！,\n1+1,2,\n".encode("utf-16-le")),
    ],
)
def test_the_same_rows_are_read_from_any_text(tmp_path: Path, name: str, content: bytes) -> None:
    assert rows(tmp_path, content, name) == ROWS


def test_the_same_rows_are_read_from_parquet_and_xlsx(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    book = openpyxl.Workbook()
    for cells in (["prompt", "completion"], ["你好", "您好！"], [None, None], ["1+1", 2]):
        book.active.append(cells)
    book.save(tmp_path / "a.xlsx")

    assert [row for _, row, _ in open_rows(tmp_path / "a.parquet").entries] == ROWS
    assert [(line, row) for line, row, _ in open_rows(tmp_path / "a.xlsx").entries] == [(2, ROWS[0]), (4, ROWS[1])]


SENTENCE = "张家界的天气怎么样？山上比山下冷，请带一件外套，并且注意天气预报。"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gb18030", "gbk"])
def test_chinese_text_is_read_in_its_encoding(tmp_path: Path, encoding: str) -> None:
    assert rows(tmp_path, SENTENCE.encode(encoding), "a.txt") == [{"text": SENTENCE}]


def test_big5_and_latin_1_are_told_and_named(tmp_path: Path) -> None:
    traditional = "請問這個問題應該怎麼回答？我們對您的說明還不清楚，謝謝您的幫助。"
    french = "Où est la bibliothèque ? Elle est près de l'école, à côté du café français. " * 5
    for text, encoding, names in ((traditional, "big5", {"big5"}), (french, "latin-1", {"cp1252", "latin_1", "iso8859_1"})):
        (tmp_path / "a.txt").write_bytes(text.encode(encoding))
        stream = open_rows(tmp_path / "a.txt")

        assert [row for _, row, _ in stream.entries] == [{"text": text}]
        assert stream.source.encoding in names


def test_a_gbk_file_that_begins_in_ascii_is_told_by_its_later_lines(tmp_path: Path) -> None:
    content = b"plain,ascii\n" * 60_000 + (SENTENCE + "," + SENTENCE + "\n").encode("gbk") * 2000

    assert rows(tmp_path, content, "a.csv")[-1] == {"plain": SENTENCE, "ascii": SENTENCE}


@pytest.mark.parametrize(
    ("line", "row", "fixes"),
    [
        (b'{"a": "1"},', {"a": "1"}, ("trailing comma removed",)),
        (b'{"a": "1", "a": "2"}', {"a": "2"}, ("key 'a' given twice; the last value counts",)),
        (b'{"a": {"b": 1, "b": 2}}', {"a": {"b": 2}}, ("key 'b' given twice; the last value counts",)),
        (b'{"a": "\\u0022"}', {"a": '"'}, ()),
        (b'{"a": "\\ud83d"}', {"a": "\ud83d"}, ("JSON repaired: raw control characters, lone surrogates or NaN",)),
        (b'{"a": "x\ty"}', {"a": "x\ty"}, ("JSON repaired: raw control characters, lone surrogates or NaN",)),
        ('{"a": "中文内容"}'.encode("gbk"), {"a": "中文内容"}, ("line read as GB18030 in a UTF-8 file",)),
        (b'{"a": "caf\xff"}', {"a": "caf"}, ("bytes that are not UTF-8 removed",)),
        (b'"just text"', {"text": "just text"}, ()),
    ],
)
def test_a_damaged_row_is_repaired_and_says_so(line: bytes, row: dict[str, Any], fixes: tuple[str, ...]) -> None:
    assert parse_row(line) == (row, fixes)


@pytest.mark.parametrize(
    "line",
    [b'{"a": ', b"{'a': 1}", b"[1, 2]", b"7", b"null", b"\x00\x00", b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", b'{"a": ' + b"9" * 10_000],
)
def test_a_row_that_cannot_be_read_says_why(line: bytes) -> None:
    row, fixes = parse_row(line)

    assert isinstance(row, Unreadable)
    assert "JSON" in row.reason
    assert fixes == ()


def test_a_number_of_a_million_digits_is_no_danger() -> None:
    row, _ = parse_row(b'{"a": ' + b"9" * 1_000_000 + b"}")

    assert not isinstance(row, Unreadable)


def test_one_bad_line_does_not_hide_the_next(tmp_path: Path) -> None:
    assert [(line, row) for line, row, _ in entries(tmp_path, b'{"a": 1}\n{"a": \n\n{"a": 3}\n', "a.jsonl")] == [
        (1, {"a": 1}),
        (2, "not JSON: unexpected end of data: line 2 column 1 (char 7)"),
        (4, {"a": 3}),
    ]


def test_a_cut_off_array_keeps_its_whole_records(tmp_path: Path) -> None:
    found = rows(tmp_path, b'[{"a": 1}, {"a": [{"b": "],}"}]}, {"a": "cut', "a.json")

    assert found[:2] == [{"a": 1}, {"a": [{"b": "],}"}]}]
    assert found[2].startswith("the file ends in the middle of a record")


def test_a_line_and_a_record_beyond_the_limit_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "MAX_ROW_BYTES", 100)
    monkeypatch.setattr(json_rows, "CHUNK_BYTES", 64)
    long = '{"a": "' + "x" * 500 + '"}'

    assert rows(tmp_path, f'{{"a": 1}}\n{long}\n{{"a": 2}}\n'.encode(), "a.jsonl") == [{"a": 1}, "line longer than 0 MB", {"a": 2}]
    assert rows(tmp_path, f'[{{"a": 1}}, {long}, {{"a": 2}}]'.encode(), "a.json")[1].startswith("record longer than 0 MB")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(), JSON, min_size=1, max_size=3), min_size=1, max_size=8), st.integers(1, 40), st.booleans())
def test_any_array_is_split_into_its_elements_however_it_is_read(values: list[Any], chunk: int, indented: bool) -> None:
    import json

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(chunk)

    text = json.dumps(values, indent=2 if indented else None, ensure_ascii=False).encode("utf-8", "surrogatepass")
    sequence = b"\n".join(json.dumps(value).encode() for value in values)

    assert [json.loads(part) for part in split_values(Slow(text), in_array=True) if isinstance(part, bytes)] == values
    assert [json.loads(part) for part in split_values(Slow(sequence), in_array=False) if isinstance(part, bytes)] == values


def test_numbers_of_a_csv_stay_text_and_quoted_cells_span_lines(tmp_path: Path) -> None:
    found = entries(tmp_path, b'question,answer\nhow many?,007\n"two\nlines","say ""hi"""\nlast,1.50\n', "a.csv")

    assert [(line, row) for line, row, _ in found] == [
        (2, {"question": "how many?", "answer": "007"}),
        (3, {"question": "two\nlines", "answer": 'say "hi"'}),
        (5, {"question": "last", "answer": "1.50"}),
    ]


def test_a_quote_that_is_never_closed_costs_one_row(tmp_path: Path) -> None:
    found = rows(tmp_path, b'question,answer\na,"b\nc,d\ne,f\n', "a.csv")

    assert found == ["a quote is never closed", {"question": "c", "answer": "d"}, {"question": "e", "answer": "f"}]


def test_a_quote_that_is_closed_much_too_late_costs_one_row(tmp_path: Path) -> None:
    found = rows(tmp_path, b'question,answer\na,"b\n' + b"c,d\n" * 6000 + b'e,"f"\n', "a.csv")

    assert found[0] == "a quote is not closed within 5000 lines"
    assert found[1:] == [{"question": "c", "answer": "d"}] * 6000 + [{"question": "e", "answer": "f"}]


def test_too_many_cells_are_refused_and_too_few_are_empty(tmp_path: Path) -> None:
    assert rows(tmp_path, b"q,a\n1,2,3\n1\n1,2,,\n", "a.csv") == [
        "3 cells for 2 columns (is a delimiter inside an unquoted cell?)",
        {"q": "1", "a": ""},
        {"q": "1", "a": "2"},
    ]


def test_a_workbook_reports_merged_cells_other_sheets_and_formulas(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for cells in (["question", "answer"], ["a", "=1+1"], ["b", 2.5], ["c", "007"]):
        book.active.append(cells)
    book.active.merge_cells("A3:A4")
    book.create_sheet("notes").append(["x"])
    book.save(tmp_path / "a.xlsx")

    stream = open_rows(tmp_path / "a.xlsx")

    assert [row for _, row, _ in stream.entries] == [{"question": "a", "answer": ""}, {"question": "b", "answer": "2.5"}, {"question": "", "answer": "007"}]
    assert [warning.kind for warning in stream.warnings] == ["merged_cells", "formulas", "other_sheets"]


def test_parquet_cells_that_repeat_a_large_value_are_decoded_a_few_at_a_time(tmp_path: Path) -> None:
    table = pyarrow.table({"text": pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 3000, pyarrow.int32()), pyarrow.array(["x" * 5_000_000]))})
    parquet.write_table(table, tmp_path / "bomb.parquet", compression="zstd")
    assert (tmp_path / "bomb.parquet").stat().st_size < 20_000

    found = open_rows(tmp_path / "bomb.parquet").entries

    assert [len(next(found)[1]["text"]) for _ in range(3)] == [5_000_000] * 3


def archive(name: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr(name, b"x" * 100)
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "error", "says"),
    [
        ("a.jsonl", b"", DataError, "is empty"),
        ("a.jsonl", b" \n\n\t\n", DataError, "holds no text"),
        ("a.jsonl", b"\x00" * 1000, DataError, "holds no text"),
        ("a.jsonl", bytes(range(256)) * 40, FormatError, "binary file"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 50_000, mtime=0)[:-40], DataError, "is damaged"),
        ("a.jsonl.gz", b"\x1f\x8bnonsense", DataError, "is damaged"),
        ("a.zip", archive("a.jsonl"), FormatError, "zip archive"),
        ("a.xlsx", archive("a.txt"), FormatError, "not an XLSX workbook"),
        ("a.xlsx", b"PK\x03\x04nonsense", DataError, "damaged workbook"),
        ("a.parquet", b"PAR1nonsense", DataError, "damaged Parquet"),
        ("a.xls", b"\xd0\xcf\x11\xe0" + b"\x00" * 100, FormatError, "old Excel"),
        ("a.pdf", b"%PDF-1.7 ...", FormatError, "PDF"),
        ("a.yml", b"- a: 1\n", FormatError, "YAML"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, name: str, content: bytes, error: type[DataError], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        entries(tmp_path, content, name)

    assert str(tmp_path / name) in str(caught.value)
    assert caught.value.fix


def test_a_folder_and_a_missing_file_say_what_is_near(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_bytes(b"{}")

    with pytest.raises(DataError, match="is a folder") as folder:
        open_rows(tmp_path)
    with pytest.raises(DataError, match="does not exist") as missing:
        open_rows(tmp_path / "date.jsonl")

    assert folder.value.fix == f"give one of its files, e.g. {tmp_path / 'data.jsonl'}"
    assert missing.value.fix == f"did you mean {tmp_path / 'data.jsonl'}?"


def test_an_xlsx_that_would_unpack_to_gigabytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from danlu.data import table_rows

    monkeypatch.setattr(table_rows, "MAX_XLSX_BYTES", 1000)
    book = openpyxl.Workbook()
    book.active.append(["question", "answer"])
    book.save(tmp_path / "a.xlsx")

    with pytest.raises(DataError, match="would unpack to"):
        list(open_rows(tmp_path / "a.xlsx").entries)
