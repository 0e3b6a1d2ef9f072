"""What a file is that somebody brings as data, told by its name and its first bytes, so that each is shown where it belongs.

Only what is surely no data is turned away; the data doctor, who reads all of it, has the last word.
"""

from pathlib import Path, PurePath
from typing import Literal

from danlu.data.sources import MAGIC, tell_encoding
from danlu.errors import FormatError

HEAD_BYTES = 4096
"""So much of the beginning is looked at."""
Door = Literal["data", "document", "picture", "sound", "archive", "program", "old_sheet", "database", "model", "recipe", "empty", "binary"]
SUFFIXES: dict[Door, tuple[str, ...]] = {
    "document": (".pdf", ".docx", ".doc", ".pptx", ".ppt", ".odt", ".rtf", ".epub", ".html", ".htm", ".md"),
    "picture": (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".svg", ".heic"),
    "sound": (".mp3", ".wav", ".m4a", ".flac", ".ogg", ".mp4", ".mov", ".avi", ".mkv", ".webm"),
    "archive": (".zip", ".rar", ".7z", ".tar", ".tgz", ".bz2", ".xz", ".zst"),
    "program": (".exe", ".dll", ".so", ".msi", ".apk", ".py", ".sh", ".bat", ".js"),
    "old_sheet": (".xls", ".ods", ".numbers"),
    "database": (".db", ".sqlite", ".sqlite3", ".arrow", ".feather"),
    "model": (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".pkl"),
    "recipe": (".yaml", ".yml"),
}
KINDS: dict[str, Door] = {
    "zip": "archive",
    "an old Excel or Word file": "old_sheet",
    "a PDF document": "document",
    "a PNG image": "picture",
    "a JPEG image": "picture",
    "a GIF image": "picture",
    "a program": "program",
    "an SQLite database": "database",
    "an Arrow file": "database",
}
"""What begins like that; other kinds of `MAGIC` are archives."""
MORE_MAGIC: tuple[tuple[bytes, Door], ...] = (
    (b"MZ", "program"),
    (b"GGUF", "model"),
    (b"\x80\x02", "model"),
    (b"\x80\x04", "model"),
    (b"RIFF", "sound"),
    (b"ID3", "sound"),
    (b"OggS", "sound"),
    (b"fLaC", "sound"),
)
TEXT = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".text")


def door_of(name: str, size_bytes: int, head: bytes) -> Door:
    """Where a file belongs, by its name, its size and its first bytes."""
    if not size_bytes:
        return "empty"
    suffix = PurePath(name.lower().removesuffix(".gz")).suffix
    by_name: Door = next((door for door, suffixes in SUFFIXES.items() if suffix in suffixes), "data")
    by_content = _by_content(head)
    if by_content == "archive" and by_name == "document":
        return "document"  # a Word file is a zip archive inside
    if by_content == "archive" and suffix == ".xlsx":
        return "data"
    if by_content == "old_sheet" and by_name != "data":
        return by_name  # old Word files begin in the same way
    if by_content != "data":
        return by_content
    if by_name == "data" and suffix in TEXT and _is_binary(head):
        return "binary"
    return by_name


def _by_content(head: bytes) -> Door:
    kind = next((kind for magic, kind in MAGIC if head.startswith(magic)), None)
    if kind is not None and kind != "parquet":
        return KINDS.get(kind, "archive")
    return next((door for magic, door in MORE_MAGIC if head.startswith(magic) and _is_binary(head)), "data")


def _is_binary(head: bytes) -> bool:
    """Whether these bytes are no text, as the one who reads the whole file would say."""
    if not head.strip() or head.startswith(b"\x1f\x8b"):
        return False
    try:
        tell_encoding(Path("it"), head, len(head))
    except FormatError:
        return True
    return False
