"""Operations: who may do what, and what is written down about it."""

import pytest
from sqlalchemy import insert, select

from danlu.errors import ConflictError, ForbiddenError, NotFoundError, SignInError
from danlu.services.platform import jobs, projects, runs
from danlu.services.platform.access import NOBODY, Actor
from danlu.services.platform.platform import Platform
from danlu.services.platform.projects import Membership, NewProject, ProjectChange
from danlu.services.platform.runs import NewRun
from danlu.store import tables

OWNER = Actor.local()
RECIPE = {"base_model": "danlu/tiny", "dataset": "zhangjiajie"}


def user(platform: Platform, name: str) -> Actor:
    with platform.database.writing() as connection:
        row = {"id": f"usr_{name}", "name": name, "name_key": name, "is_admin": False, "is_active": True, "preferences": {}}
        connection.execute(insert(tables.users).values(**row, created_at=0.0, updated_at=0.0, version=1))
    return Actor(user_id=f"usr_{name}", name=name, is_signed_in=True)


def test_whoever_makes_a_project_administers_it_and_strangers_do_not_learn_of_it(platform: Platform) -> None:
    ann, bob = user(platform, "ann"), user(platform, "bob")
    made = projects.create_project(platform, ann, NewProject(name="ann's"))

    assert projects.list_projects(platform, ann).items == [made]
    assert projects.list_projects(platform, bob).items == []
    with pytest.raises(NotFoundError):
        projects.get_project(platform, bob, made.id)
    with pytest.raises(SignInError):
        projects.get_project(platform, NOBODY, made.id)


@pytest.mark.parametrize("role", ["viewer", "reviewer", "editor", "admin"])
def test_a_role_may_do_what_those_before_it_may(platform: Platform, role: str) -> None:
    bob = user(platform, "bob")
    made = projects.create_project(platform, OWNER, NewProject(name="p"))
    projects.set_member(platform, OWNER, made.id, bob.user_id or "", Membership.model_validate({"role": role}))

    def allowed(*calls: object) -> list[bool]:
        outcomes = []
        for call in calls:
            try:
                call()  # type: ignore[operator]
                outcomes.append(True)
            except ForbiddenError:
                outcomes.append(False)
        return outcomes

    read = lambda: projects.get_project(platform, bob, made.id)  # noqa: E731
    train = lambda: runs.submit_run(platform, bob, made.id, NewRun(recipe=RECIPE))  # noqa: E731
    rename = lambda: projects.change_project(platform, bob, made.id, ProjectChange(name="q"))  # noqa: E731
    assert (
        allowed(read, train, rename)
        == {
            "viewer": [True, False, False],
            "reviewer": [True, False, False],
            "editor": [True, True, False],
            "admin": [True, True, True],
        }[role]
    )


def test_a_key_is_bound_to_its_role_and_project(platform: Platform) -> None:
    mine, other = (projects.create_project(platform, OWNER, NewProject(name=name)) for name in "ab")
    key = Actor(user_id=None, name="key", is_signed_in=True, is_operator=True, key_role="viewer", key_project_id=mine.id)

    assert projects.list_projects(platform, key).items == [mine]
    with pytest.raises(ForbiddenError):
        projects.delete_project(platform, key, mine.id)
    with pytest.raises(NotFoundError):
        projects.get_project(platform, key, other.id)


def test_every_change_is_in_the_audit_log_and_a_refused_one_changes_nothing(platform: Platform) -> None:
    made = projects.create_project(platform, Actor.local("127.0.0.1"), NewProject(name="p"))
    submitted = runs.submit_run(platform, OWNER, made.id, NewRun(recipe=RECIPE))
    with pytest.raises(ConflictError, match="at work"):
        projects.delete_project(platform, OWNER, made.id)
    job = runs.list_run_jobs(platform, OWNER, submitted.id)[0]
    jobs.cancel_job(platform, OWNER, job.id)

    with platform.database.reading() as connection:
        log = [tuple(row) for row in connection.execute(select(tables.audit_log.c["action", "subject", "project_id", "address"]))]
    assert log == [("create_project", made.id, None, "127.0.0.1"), ("submit_run", submitted.id, made.id, None), ("cancel_job", job.id, made.id, None)]
