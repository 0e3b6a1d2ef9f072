"""Names that people give to things and files: kept as written as far as that is harmless."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, Field

MAX_FILE_NAME_BYTES = 200
"""Below the 255 of file systems, with room for a temporary suffix."""
UNWANTED = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters (which steer terminals) and marks that turn the direction of text (which make one name look like another)."""
NOT_IN_FILE_NAMES = re.compile(r'[\\/:*?"<>|]')


def clean_name(name: str) -> str:
    """Return a name in Unicode's composed form with single blanks.

    Raises:
        ValueError: nothing is left, or it holds control characters.
    """
    if UNWANTED.search(name):
        raise ValueError("a name cannot hold control characters or marks of text direction")
    plain = " ".join(unicodedata.normalize("NFC", name).split())
    if not plain:
        raise ValueError("a name needs at least one visible character")
    return plain


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(clean_name)]
"""What people call a thing. Any script; markup is text like any other and is shown as such."""


OptionalName = Annotated[str, Field(max_length=200), AfterValidator(lambda name: clean_name(name) if name.strip(" ") else "")]
"""The same, or nothing."""


def clean_dataset_name(name: str) -> str:
    """Return the name of a dataset.

    Raises:
        ValueError: it ends like a version, so that nobody could tell whether `support@2` is one.
    """
    plain = clean_name(name)
    if re.search(r"@\d+$", plain):
        raise ValueError("the name of a dataset cannot end with @ and a number: so its versions are called")
    return plain


DatasetName = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(clean_dataset_name)]
"""What people call a dataset; recipes name a version of it as `name@number`."""


def safe_file_name(name: str) -> str:
    """Return a name under which the content of an uploaded file can lie on any disk: no folder, nothing hidden, at most 200 bytes."""
    plain = UNWANTED.sub("", unicodedata.normalize("NFC", name)).replace("\\", "/").rstrip("/").rpartition("/")[2]
    plain = NOT_IN_FILE_NAMES.sub("_", plain).strip(". ") or "data"
    suffix = "".join(PurePosixPath(plain).suffixes[-2:])
    suffix = suffix if len(suffix.encode()) <= 20 else ""
    stem = plain[: len(plain) - len(suffix)] if suffix else plain
    room = MAX_FILE_NAME_BYTES - len(suffix.encode())
    stem = stem.encode()[:room].decode("utf-8", "ignore")
    if re.fullmatch(r"(?i:con|prn|aux|nul|com\d|lpt\d)", stem.partition(".")[0]):
        stem = f"_{stem}"
    return (stem.rstrip(". ") or "data") + suffix
