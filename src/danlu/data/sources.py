"""Opening a user's data file: what it is, how its text is encoded, and a stream of its bytes as UTF-8.

Content decides; the suffix only settles what content cannot (CSV or plain text). Knows nothing of rows.
"""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from danlu.errors import DataError, FormatError

SAMPLE_BYTES = 256 * 1024
FREE_EXPANSION_BYTES = 2 * 1024**3
MAX_EXPANSION = 200
"""A compressed file may become that many times as large, or FREE_EXPANSION_BYTES if that is more; text compresses to about a tenth."""
FORMATS_READ = "JSON, JSONL, CSV, TSV, XLSX, Parquet or TXT (each may be gzipped)"

MAGIC = (
    (b"PAR1", "parquet"),
    (b"PK\x03\x04", "zip"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"ARROW1", "an Arrow file"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"(\xb5/\xfd", "a zstd archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
)
BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
LEGACY_ENCODINGS = ["gb18030", "big5", "shift_jis", "euc_kr", "cp1252", "latin_1", "cp1251"]


@dataclass(frozen=True)
class SourceFile:
    """A data file that can be read."""

    path: Path
    container: str
    """`text`, `parquet` or `xlsx`."""
    encoding: str
    """Of text files; "" for the others."""
    is_gzip: bool
    suffix: str
    """Without .gz, lower case, e.g. `.jsonl`."""
    head: str
    """The first characters of a text file."""
    num_bytes: int

    @contextmanager
    def open_utf8(self) -> Iterator[BinaryIO]:
        """Open the text as UTF-8 bytes without a byte order mark.

        Raises:
            DataError: the file went away, or its compressed stream is damaged.
        """
        with _reading(self.path), _open_raw(self.path, self.is_gzip) as raw:
            if self.encoding == "utf-8-sig":
                raw.read(3)
            if self.encoding in ("utf-8", "utf-8-sig", "ascii"):
                yield raw
            else:
                yield cast("BinaryIO", io.BufferedReader(_Transcoder(raw, self.encoding), 1 << 20))


def open_source(path: Path) -> SourceFile:
    """Look at a data file.

    Raises:
        DataError: it is missing, a folder, empty, or cannot be read.
        FormatError: it is of a kind that Danlu does not read.
    """
    _check_is_file(path)
    with _reading(path):
        with path.open("rb") as file:
            is_gzip = file.read(2) == b"\x1f\x8b"
        with _open_raw(path, is_gzip) as raw:
            head = raw.read(SAMPLE_BYTES)
    num_bytes = path.stat().st_size
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if is_gzip and suffixes and suffixes[-1] in (".gz", ".gzip"):
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    container = _container(path, head, is_gzip)
    if container != "text":
        return SourceFile(path, container, "", is_gzip, suffix, "", num_bytes)
    if not head.strip(b"\x00\r\n\t \xef\xbb\xbf\xff\xfe"):
        raise DataError(f"{path} holds no text", why="it is empty or blank", fix="give a file with at least a few examples")
    _refuse_suffix(path, suffix)
    encoding = tell_encoding(path, head + _rest_sample(path, is_gzip, len(head)), len(head))
    text = head.decode(encoding, "replace").removeprefix("\ufeff")
    return SourceFile(path, "text", encoding, is_gzip, suffix, text, num_bytes)


def tell_encoding(path: Path, sample: bytes, head_len: int) -> str:
    """Return the encoding of `sample`, whose first `head_len` bytes are the start of the file.

    Raises:
        FormatError: it is not text.
    """
    for bom, marked in BOMS:
        if sample.startswith(bom):
            return marked
    if sample.count(b"\x00") * 10 > len(sample):
        evens, odds = sample[0:head_len:2].count(0), sample[1:head_len:2].count(0)
        if min(evens, odds) * 10 < max(evens, odds):
            return "utf-16-le" if odds > evens else "utf-16-be"
        raise _not_text(path)
    encoding = "utf-8" if _is_utf8(sample) else _legacy_encoding(sample)
    if encoding is None:
        # Bytes of no encoding in a file that is mostly plain ASCII: damage, which each line accounts for.
        is_plain = sum(line.isascii() for line in sample.split(b"\n")) * 2 > sample.count(b"\n")
        encoding = "utf-8" if is_plain and sample.count(b"\n") else None
    if encoding is None:
        raise _not_text(path)
    if not encoding.startswith("utf-16"):
        _refuse_control_bytes(path, sample)
    return encoding


def _is_utf8(sample: bytes) -> bool:
    """Whether at least half of the lines with more than ASCII are UTF-8, or nearly all of the characters are."""
    lines = [line for line in sample.split(b"\n") if not line.isascii()]
    num_good = 0
    for line in lines:
        # A character that the end of the sample cuts is no mistake.
        with suppress(UnicodeDecodeError):
            codecs.getincrementaldecoder("utf-8")().decode(line)
            num_good += 1
    if num_good * 2 >= len(lines):
        return True
    text = sample.decode("utf-8", "replace")
    return text.count("\ufffd") * 50 < sum(character > "\x7f" for character in text)


def _legacy_encoding(sample: bytes) -> str | None:
    from charset_normalizer import from_bytes

    pieces = sample.split(b"\n")
    lines = b"\n".join(line for line in pieces[: max(1, len(pieces) - 1)] if not line.isascii())[: 64 * 1024] or sample[: 64 * 1024]
    best = from_bytes(lines, cp_isolation=LEGACY_ENCODINGS, threshold=0.5).best()
    # Short samples are too short for statistics; common characters tell Chinese encodings surely.
    for chinese, text in (("gb18030", lines), ("big5", lines), ("utf-16-le", sample), ("utf-16-be", sample)):
        if _common_share(text, chinese) > 0.15:
            return chinese
    return best.encoding if best else None


COMMON = frozenset(
    "的一是不了人我在有他这中大来上个国到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可里后小么心多天而能好都然没日于起还发成事只作当想看文无开手十用主行方又如前所本见经头面公同三已老从动两長這個們來時會對說國學過後開無為與請問題答您什麼"
)


def _common_share(sample: bytes, encoding: str) -> float:
    text = sample.decode(encoding, "replace")
    wide = [character for character in text if character > "\x7f"]
    if not wide or text.count("\ufffd") * 50 > len(wide):
        return 0.0
    return sum(character in COMMON for character in wide) / len(wide)


def _container(path: Path, head: bytes, is_gzip: bool) -> str:
    kind = next((kind for magic, kind in MAGIC if head.startswith(magic)), "text")
    if kind in ("text", "parquet"):
        if kind == "parquet" and is_gzip:
            raise FormatError(f"{path} is a gzipped Parquet file", why="Parquet is compressed inside", fix=f"unpack it: gunzip {path.name}")
        return kind
    if kind == "zip":
        if b"xl/" in head[:SAMPLE_BYTES] or path.suffix.lower() in (".xlsx", ".xlsm"):
            if is_gzip:
                raise FormatError(f"{path} is a gzipped XLSX file", why="XLSX is compressed inside", fix=f"unpack it: gunzip {path.name}")
            return "xlsx"
        raise FormatError(
            f"{path} is a zip archive",
            why="it may hold several files, and one dataset is one file",
            fix=f"unpack it and give the data file inside: unzip {path.name}",
        )
    fix = "save it as .xlsx or .csv" if kind.startswith("an old") else f"give {FORMATS_READ}"
    raise FormatError(f"{path} is {kind}", why=f"a dataset is {FORMATS_READ}", fix=fix)


UNREAD_SUFFIXES = {
    ".yml": "YAML",
    ".yaml": "YAML",
    ".xml": "XML",
    ".html": "HTML",
    ".htm": "HTML",
    ".rtf": "RTF",
    ".py": "a Python program",
}


def _refuse_suffix(path: Path, suffix: str) -> None:
    if suffix in UNREAD_SUFFIXES:
        raise FormatError(f"{path} is {UNREAD_SUFFIXES[suffix]}", why=f"a dataset is {FORMATS_READ}", fix="convert it, e.g. to JSONL with one example a line")


def _refuse_control_bytes(path: Path, sample: bytes) -> None:
    controls = sum(sample.count(byte) for byte in bytes(range(1, 9)) + bytes(range(14, 27)) + bytes(range(28, 32)))
    if controls * 20 > len(sample):
        raise _not_text(path)


def _not_text(path: Path) -> FormatError:
    return FormatError(f"{path} is a binary file", why="its bytes are not text in any encoding that was tried", fix=f"give {FORMATS_READ}")


def _check_is_file(path: Path) -> None:
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if p.is_file())[:3]
        hint = f"give one of its files, e.g. {path / inside[0]}" if inside else "give a data file"
        raise DataError(f"{path} is a folder", why="a dataset is one file", fix=hint)
    if not path.exists():
        near = _near_files(path)
        raise DataError(f"{path} does not exist", why="there is no file of that name", fix=f"did you mean {near}?" if near else "check the path")
    if not path.is_file():
        raise DataError(f"{path} is not a regular file", why="it is a device, a pipe or a socket", fix="save the data to a file first")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty", why="it has 0 bytes", fix="give a file with at least a few examples")


@contextmanager
def named_only(path: Path) -> Iterator[None]:
    """Let errors name a file as its owner knows it, without the folder in which it is kept.

    Raises:
        DataError: what was raised inside, so worded.
    """
    try:
        yield
    except DataError as error:
        what, why, fix = (text.replace(f"{path.parent}/", "") for text in (error.what, error.why, error.fix))
        raise type(error)(what, why=why, fix=fix) from error


def _near_files(path: Path) -> str:
    from difflib import get_close_matches

    if not path.parent.is_dir():
        return ""
    near = get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1)
    return str(path.parent / near[0]) if near else ""


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged", why=f"its gzip stream cannot be unpacked: {error}", fix="download or compress it again") from error
    except PermissionError as error:
        raise DataError(f"{path} cannot be opened", why="no permission to read it", fix=f"chmod u+r {path}") from error
    except (DataError, UnicodeError):
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read", why=error.strerror or repr(error), fix="check the disk and the path") from error


def _open_raw(path: Path, is_gzip: bool) -> BinaryIO:
    if is_gzip:
        return cast("BinaryIO", io.BufferedReader(_Bounded(path), 1 << 20))
    return path.open("rb", buffering=1 << 20)


def _rest_sample(path: Path, is_gzip: bool, head_len: int) -> bytes:
    """Whole lines from the middle and the end of the file: a file may begin in ASCII and go on in GBK."""
    if is_gzip:
        return b""
    size = path.stat().st_size
    pieces = []
    with path.open("rb") as file:
        for position in (size // 2, size - 64 * 1024):
            if position > head_len:
                file.seek(position)
                lines = file.read(64 * 1024).split(b"\n")
                pieces.append(b"\n".join(lines[1:-1]))
    return b"\n" + b"\n".join(pieces) if pieces else b""


class Expansion:
    """Counts what a compressed file has become, and ends what grows without measure: two kilobytes can stand for gigabytes."""

    def __init__(self, path: Path) -> None:
        self._path, self._room = path, max(FREE_EXPANSION_BYTES, MAX_EXPANSION * path.stat().st_size)

    def add(self, num_bytes: int) -> None:
        """Note that so many bytes more were unpacked.

        Raises:
            DataError: it is too much.
        """
        self._room -= num_bytes
        if self._room < 0:
            raise DataError(
                f"{self._path} unpacks to far more than it is",
                why=f"more than {FREE_EXPANSION_BYTES / 1e9:.0f} GB and more than {MAX_EXPANSION} times its {self._path.stat().st_size:,} bytes",
                fix="if its rows are meant to repeat so often, give it unpacked, as JSONL",
            )


class _Bounded(io.RawIOBase):
    """A gzip stream that does not grow without measure."""

    def __init__(self, path: Path) -> None:
        self._stream, self._expansion = gzip.open(path, "rb"), Expansion(path)  # noqa: SIM115 - closed with this stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast("bytearray", buffer))
        chunk = self._stream.read(len(view))
        self._expansion.add(len(chunk))
        view[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Transcoder(io.RawIOBase):
    """Reads bytes of another encoding as UTF-8; what cannot be decoded becomes U+FFFD, which cleaning accounts for."""

    def __init__(self, raw: BinaryIO, encoding: str) -> None:
        self._raw = raw
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast("bytearray", buffer))
        while not self._ready:
            chunk = self._raw.read(1 << 18)
            self._ready = self._decoder.decode(chunk, final=not chunk).encode("utf-8", "surrogatepass")
            if not chunk and not self._ready:
                return 0
        count = min(len(view), len(self._ready))
        view[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


def hash_file(path: Path) -> tuple[str, int]:
    """Return the SHA-256 of a file and how many line ends it holds."""
    import hashlib

    digest, num_lines = hashlib.sha256(), 0
    with _reading(path), path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            num_lines += chunk.count(b"\n")
    return digest.hexdigest(), num_lines
