"""Every error a user can meet, in one tree. Codes are stable and documented in docs/errors.md.

    DanluError                DL000
    +- RecipeError            DL100   a recipe that does not validate (all its mistakes at once)
    |  +- UnknownNameError    DL101   a plugin, model or dataset name that does not exist
    |  +- NoEffectError       DL102   a setting that would do nothing, or a combination that cannot work
    +- DataError              DL200   a data file that cannot be read
    |  +- FormatError         DL201   its format cannot be told, or is not the one asked for
    |  +- TooFewExamplesError DL202   nothing (or too little) left to train on
    +- EvaluationError        DL300
    |  +- MetricError         DL301
    +- ModelError             DL400   a base model or adapter that cannot be loaded
    |  +- UnsafeModelError    DL401   pickle weights, remote code, paths that leave the folder
    |  +- TemplateError       DL402   a chat template that cannot render or mask an example
    +- TrainingError          DL500
    |  +- OutOfMemoryError    DL501
    |  +- DivergedError       DL502   loss is NaN or infinite
    |  +- CheckpointError     DL503   no checkpoint verifies
    +- ExportError            DL600
    |  +- VerificationError   DL601   the exported model differs from the trained one
    +- StorageError           DL700   disk full, read-only folder, run folder in use
    |  +- RunNotFoundError    DL701
    |  +- RunBusyError        DL702
    +- MissingExtraError      DL800   an optional part that is not installed
    +- InternalError          DL900   a defect in Danlu itself
"""

from typing import ClassVar


class DanluError(Exception):
    """What happened, why, and what to do about it."""

    code: ClassVar[str] = "DL000"
    http_status: ClassVar[int] = 400
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, why: str, fix: str) -> None:
        super().__init__(what, why, fix)
        self.what, self.why, self.fix = what, why, fix

    def __str__(self) -> str:
        return f"{self.code}: {self.what}\n  why: {self.why}\n  fix: {self.fix}"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.why, self.fix)


def _rebuild(cls: type[DanluError], what: str, why: str, fix: str) -> DanluError:
    return cls(what, why=why, fix=fix)


class RecipeError(DanluError, ValueError):
    """A recipe that does not validate; `what` lists every mistake with its path."""

    code, exit_code = "DL100", 2


class UnknownNameError(RecipeError):
    """A name that is not installed, bundled or on disk. A ValueError, so pydantic keeps its `loc`."""

    code = "DL101"


class NoEffectError(RecipeError):
    """A setting that would do nothing, or a combination that cannot work."""

    code = "DL102"


class DataError(DanluError, ValueError):
    """A data file that cannot be read."""

    code, exit_code = "DL200", 3


class FormatError(DataError):
    """The format of a data file cannot be told, or its rows do not fit the one asked for."""

    code = "DL201"


class TooFewExamplesError(DataError):
    """Nothing, or too little, is left to train or evaluate on."""

    code = "DL202"


class EvaluationError(DanluError, ValueError):
    """An evaluation that cannot be carried out."""

    code, exit_code = "DL300", 5


class MetricError(EvaluationError):
    """A metric cannot be computed from the data it was given."""

    code = "DL301"


class ModelError(DanluError, ValueError):
    """A base model or adapter that cannot be loaded."""

    code, exit_code = "DL400", 4


class UnsafeModelError(ModelError):
    """A model folder that could run code or read outside itself."""

    code = "DL401"


class TemplateError(ModelError):
    """A chat template that cannot render an example or tell which tokens are trained."""

    code = "DL402"


class TrainingError(DanluError, RuntimeError):
    """Training cannot go on."""

    code, exit_code = "DL500", 5


class OutOfMemoryError(TrainingError):
    """Not even the smallest micro batch fits."""

    code = "DL501"


class DivergedError(TrainingError):
    """The loss became NaN or infinite."""

    code = "DL502"


class CheckpointError(TrainingError):
    """A checkpoint that does not verify."""

    code = "DL503"


class ExportError(DanluError, RuntimeError):
    """An export that cannot be made."""

    code, exit_code = "DL600", 6


class VerificationError(ExportError):
    """The exported model does not behave like the trained one; it was removed."""

    code = "DL601"


class StorageError(DanluError, OSError):
    """Disk full, a read-only folder, an I/O error."""

    code, http_status, exit_code = "DL700", 507, 7

    def __str__(self) -> str:
        return DanluError.__str__(self)


class RunNotFoundError(StorageError):
    """No run of that name or folder."""

    code, http_status = "DL701", 404


class RunBusyError(StorageError):
    """Another process is working on this run."""

    code, http_status = "DL702", 409


class MissingExtraError(DanluError, RuntimeError):
    """An optional part of Danlu that is not installed."""

    code, exit_code = "DL800", 8


class InternalError(DanluError, RuntimeError):
    """A defect in Danlu itself, not in the user's input."""

    code, http_status, exit_code = "DL900", 500, 70
