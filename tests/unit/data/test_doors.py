"""Each file at its right door: by its name where that is enough, by its first bytes where the name says something else."""

import pytest

from danlu.data.doors import Door, door_of

ROW = b'{"instruction": "Where?", "output": "There."}\n'
PROGRAM = b"MZ\x90\x00\x03\x00\x00\x00\x04\x00" + bytes(range(256)) * 4
CHINESE = '{"question": "\u5f20\u5bb6\u754c\u5728\u54ea\u91cc\uff1f"}\n' * 9


@pytest.mark.parametrize(
    ("name", "head", "door"),
    [
        ("guide.jsonl", ROW, "data"),
        ("GUIDE.CSV", b"question,answer\n", "data"),
        ("guide.xlsx", b"PK\x03\x04[Content_Types].xml", "data"),
        ("guide.parquet", b"PAR1\x15\x04", "data"),
        ("guide.jsonl.gz", b"\x1f\x8b\x08\x00\x00", "data"),
        ("guide", ROW, "data"),
        ("guide.jsonl", CHINESE.encode("utf-16"), "data"),
        ("guide.jsonl", CHINESE.encode("utf-16-be"), "data"),
        ("guide.csv", CHINESE.encode("gb18030"), "data"),
        ("manual.pdf", b"%PDF-1.7", "document"),
        ("manual.jsonl", b"%PDF-1.7", "document"),
        ("manual.docx", b"PK\x03\x04word", "document"),
        ("manual.doc", b"\xd0\xcf\x11\xe0", "document"),
        ("sheet.xls", b"\xd0\xcf\x11\xe0", "old_sheet"),
        ("photo.jpeg", b"\xff\xd8\xff", "picture"),
        ("photo.csv", b"\x89PNG\r\n", "picture"),
        ("all.zip", b"PK\x03\x04", "archive"),
        ("all.json", b"PK\x03\x04", "archive"),
        ("all.tar.gz", b"\x1f\x8b\x08", "archive"),
        ("setup.exe", PROGRAM, "program"),
        ("setup.jsonl", PROGRAM, "program"),
        ("noise.jsonl", bytes(range(256)) * 16, "binary"),
        ("MZ.txt", b"MZ is a name like any other, and this is text.\n", "data"),
        ("notes.db", b"SQLite format 3\x00", "database"),
        ("model.safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00{}", "model"),
        ("recipe.yaml", b"base_model: danlu/tiny\n", "recipe"),
        ("talk.mp3", b"ID3\x03", "sound"),
        ("<img src=x onerror=alert(1)>\U0001f600" * 300 + ".jsonl", ROW, "data"),
    ],
)
def test_a_file_is_shown_its_door(name: str, head: bytes, door: Door) -> None:
    assert door_of(name, len(head), head) == door


@pytest.mark.parametrize("name", ["guide.jsonl", "manual.pdf", "nothing"])
def test_an_empty_file_is_empty_whatever_its_name(name: str) -> None:
    assert door_of(name, 0, b"") == "empty"
