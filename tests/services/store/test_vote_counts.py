"""Votes and ratings are counted by the database as they would be by hand, and what was written is not read for it."""

import random
from collections import Counter
from typing import Any

from sqlalchemy import event

from danlu.store.engine import Database
from danlu.store.votes import RATINGS, VOTES, ModelTally, count

ASKED = [{"role": "user", "content": "q \u95ee '\" \U0001f600"}]


def test_counts_are_those_of_counting_by_hand(database: Database, project: str) -> None:
    dice = random.Random(1)
    shown: Counter[str] = Counter()
    better: Counter[str] = Counter()
    equal: Counter[str] = Counter()
    num_pairs = num_ties = num_blind = 0
    with database.writing() as connection:
        for _ in range(60):
            answers = [{"model": dice.choice("abc"), "text": dice.choice(["yes", "\u662f", "no '\"", ""])} for _ in range(dice.randint(2, 4))]
            winner, is_blind = dice.choice([None, *range(len(answers))]), dice.random() < 0.5
            VOTES.insert(connection, project_id=project, messages=ASKED, answers=answers, winner=winner, is_blind=is_blind, created_by=None)
            models = {answer["model"] for answer in answers}
            shown.update(models)
            num_blind += is_blind
            if winner is None:
                num_ties += 1
                equal.update(models)
            else:
                better[answers[winner]["model"]] += 1
                num_pairs += sum(answer["text"] != answers[winner]["text"] for answer in answers)
        for correction in (None, "", "same", "other"):
            rating = {"run_id": None, "model": "a", "messages": ASKED, "answer": "same", "score": 2, "correction": correction, "created_by": None}
            RATINGS.insert(connection, project_id=project, **rating)

        found = count(connection, project)

    assert (found.num_votes, found.num_blind, found.num_ties, found.num_ratings, found.num_corrections) == (60, num_blind, num_ties, 4, 2)
    assert found.num_pairs == num_pairs + 1
    wanted = [ModelTally(model, shown[model], better[model], equal[model]) for model in sorted(shown, key=lambda model: (-shown[model], model))]
    assert found.models == wanted


def test_a_project_without_votes_has_none(database: Database, project: str) -> None:
    with database.reading() as connection:
        assert count(connection, project).models == [] and count(connection, project).num_pairs == 0


def test_what_was_asked_and_answered_is_not_read_to_count(database: Database, project: str) -> None:
    with database.writing() as connection:
        answers = [{"model": "a", "text": "x" * 1000}, {"model": "b", "text": "y"}]
        VOTES.insert(connection, project_id=project, messages=ASKED, answers=answers, winner=0, is_blind=True, created_by=None)
    said: list[str] = []

    def hear(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        said.append(statement)

    event.listen(database.engine, "before_cursor_execute", hear)
    with database.reading() as connection:
        assert count(connection, project).num_pairs == 1
    event.remove(database.engine, "before_cursor_execute", hear)
    assert len(said) >= 4 and not any("messages" in statement for statement in said)
