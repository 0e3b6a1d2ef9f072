"""What every error is: what happened, why, what to do."""

from collections.abc import Mapping
from typing import ClassVar


class DanluError(Exception):
    """What happened, why, and what to do about it.

    Why: it is never raised itself; catch it to catch everything that Danlu raises on purpose.
    Fix: read the three lines of the error; the code leads to its place on this page.
    """

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

    def to_dict(self) -> dict[str, str]:
        """Code and sentences as plain values, to be stored."""
        return {"code": self.code, "what": self.what, "why": self.why, "fix": self.fix}


def _rebuild(cls: type[DanluError], what: str, why: str, fix: str) -> DanluError:
    return cls(what, why=why, fix=fix)


def error_from(told: Mapping[str, str]) -> DanluError:
    """The error that another process told by `to_dict`, of the same class where this version has it."""
    classes = [DanluError]
    for cls in classes:
        classes += cls.__subclasses__()
    found = next((cls for cls in classes if cls.code == told["code"]), DanluError)
    return found(told["what"], why=told["why"], fix=told["fix"])


class MissingExtraError(DanluError, RuntimeError):
    """An optional part of Danlu that is not installed.

    Why: the core of Danlu is small; training, evaluation and export bring their own packages.
    Fix: install what the message names, for example `pip install 'danlu[all]'`.
    """

    code, exit_code = "DL800", 8


class InternalError(DanluError, RuntimeError):
    """A defect in Danlu itself, not in the user's input.

    Why: something that must never happen did.
    Fix: start the command again with `--debug` and report the output; the run folder keeps everything up to that point.
    """

    code, http_status, exit_code = "DL900", 500, 70
