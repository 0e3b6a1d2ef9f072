"""Times as people say them."""

from datetime import datetime

import pytest
import typer

from danlu.cli.times import moment

NOON = datetime(2026, 11, 22, 12, 0).timestamp()


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("tonight", datetime(2026, 11, 22, 22, 0)),
        ("今晚", datetime(2026, 11, 22, 22, 0)),
        ("22:30", datetime(2026, 11, 22, 22, 30)),
        ("6:15", datetime(2026, 11, 23, 6, 15)),
        ("12:00", datetime(2026, 11, 23, 12, 0)),
        ("2026-11-30 06:00", datetime(2026, 11, 30, 6, 0)),
    ],
)
def test_a_time_is_the_next_one_of_its_name(said: str, meant: datetime) -> None:
    assert moment(said, NOON) == meant.timestamp()


@pytest.mark.parametrize("hour", [22, 23, 0, 5])
def test_at_night_tonight_is_now(hour: int) -> None:
    now = datetime(2026, 11, 22, hour, 30).timestamp()

    assert moment("tonight", now) == now


@pytest.mark.parametrize("said", ["soon", "25:00", "12:60", "", "2026-11-21", "2026-11-22 11:59", "99999-01-01"])
def test_what_is_no_time_or_has_passed_is_refused(said: str) -> None:
    with pytest.raises(typer.BadParameter):
        moment(said, NOON)
