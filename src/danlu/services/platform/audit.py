"""Use cases on the audit log: read it. Lines are written by the operations themselves and cannot be changed."""

from __future__ import annotations

from danlu.services.platform.operations import Call, operation
from danlu.store import audit
from danlu.store.audit import AuditLine
from danlu.store.rows import Page


@operation("GET", "/audit", right="operator")
def list_audit(
    call: Call,
    user_id: str | None = None,
    action: str | None = None,
    subject: str | None = None,
    project_id: str | None = None,
    since: float | None = None,
    until: float | None = None,
    limit: int = 50,
    after: str | None = None,
) -> Page[AuditLine]:
    """Who did what, when and from where, newest first."""
    where = {"user_id": user_id, "action": action, "subject": subject, "project_id": project_id}
    return audit.page(call.connection, limit=limit, after=after, since=since, until=until, **where)


@operation("GET", "/projects/{project_id}/audit", right="admin")
def list_project_audit(call: Call, project_id: str, action: str | None = None, limit: int = 50, after: str | None = None) -> Page[AuditLine]:
    """Who did what in one project, newest first."""
    return audit.page(call.connection, limit=limit, after=after, project_id=project_id, action=action)
