"""Where every row of a data file went. The sums hold, or it is a defect of ours."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class DataWarning:
    """Something the user should know about a data file, in both languages."""

    kind: str
    """Stable name, e.g. `placeholders` or `empty_split`."""
    en: str
    zh: str

    def __str__(self) -> str:
        return self.en


@dataclass(frozen=True)
class Accounting:
    """rows_in = used + dropped + duplicate + near_duplicate, and used = train + validation + test."""

    source: dict[str, Any]
    """`name`, `sha256`, `num_bytes`, `mtime_ns` of the file."""
    format: str
    """Type of the dataset format."""
    columns: dict[str, str]
    """Columns that the recipe names for it."""
    container: str
    """`json`, `jsonl`, `csv`, `xlsx`, `parquet` or `txt`."""
    encoding: str
    """Encoding of a text file; "" for the others."""
    unit: str
    """What `line` counts: `line`, `row` or `record`."""
    rows_in: int
    dropped: int
    duplicate: int
    near_duplicate: int
    """Rows dropped because they nearly equal an earlier one (only with data.near_duplicates: drop)."""
    near_duplicates_kept: int
    """Used rows that nearly equal an earlier used one; they share its split."""
    fixed: int
    """Used rows that were repaired."""
    splits: dict[str, int]
    """Rows of the main file in `train`, `validation` and `test`."""
    reasons: dict[str, dict[str, int]]
    """For `dropped` and `fixed`: reason -> number of rows (a fixed row may have several)."""
    mix: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Per mixed dataset: `share`, `rows_in`, `available`, `added`, `repeated`, `held_out_duplicates`, `sha256`."""
    given: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Per held-out split that has a file of its own: `rows_in`, `dropped`, `duplicate`, `leaked` (rows that equal test rows), `used`, `format`, `source`."""
    warnings: list[DataWarning] = field(default_factory=list)
    key: str = ""
    """Hash of everything that determined the result."""

    def __post_init__(self) -> None:
        assert self.rows_in == self.used + self.dropped + self.duplicate + self.near_duplicate, self
        assert self.fixed <= self.used and self.dropped == sum(self.reasons["dropped"].values()), self

    @property
    def used(self) -> int:
        """Rows of the file that are in one of the splits."""
        return sum(self.splits.values())

    @property
    def num_train(self) -> int:
        """Examples to train on, mixed ones included."""
        return self.splits["train"] + sum(int(one["added"]) for one in self.mix.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"used": self.used}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "Accounting":
        """The account that `to_dict` wrote."""
        fields = {name: value[name] for name in cls.__dataclass_fields__ if name in value}
        return cls(**fields | {"warnings": [DataWarning(**warning) for warning in value["warnings"]]})
