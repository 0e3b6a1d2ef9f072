"""Contract of the error tree: stable unique codes, explained, drawn in the tree, usable across processes."""

import inspect
import pickle
import re

import pytest

from danlu import errors
from danlu.errors import DanluError

CLASSES = sorted((cls for cls in vars(errors).values() if inspect.isclass(cls) and issubclass(cls, DanluError)), key=lambda cls: cls.code)


def test_codes_are_unique_and_well_formed() -> None:
    codes = [cls.code for cls in CLASSES]

    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"DL\d{3}", code) for code in codes)


def test_the_tree_in_the_docstring_is_the_tree_of_the_code() -> None:
    drawn = re.findall(r"(\w+Error)\s+(DL\d{3})", errors.__doc__ or "")

    assert sorted(drawn) == sorted((cls.__name__, cls.code) for cls in CLASSES)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.code)
def test_an_error_explains_itself(cls: type[DanluError]) -> None:
    paragraphs = (inspect.getdoc(cls) or "").split("\n")

    assert cls.__doc__ != DanluError.__doc__ or cls is DanluError
    assert [line.split(":")[0] for line in paragraphs[2:4]] == ["Why", "Fix"]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.code)
def test_an_error_survives_pickling(cls: type[DanluError]) -> None:
    error = cls("what", why="why", fix="fix")

    copy = pickle.loads(pickle.dumps(error))

    assert (type(copy), copy.what, copy.why, copy.fix) == (cls, "what", "why", "fix")


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.code)
def test_an_error_prints_code_what_why_and_fix(cls: type[DanluError]) -> None:
    assert str(cls("what", why="why", fix="fix")) == f"{cls.code}: what\n  why: why\n  fix: fix"


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.code)
def test_exit_codes_say_failure_and_stay_clear_of_those_of_the_shell(cls: type[DanluError]) -> None:
    assert 1 <= cls.exit_code <= 120
    assert 400 <= cls.http_status <= 599
