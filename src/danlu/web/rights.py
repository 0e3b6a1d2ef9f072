"""What the one who looks may do: pages offer no more than that. Whoever does something is asked again by the operation itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from danlu.services.platform.access import Role, role_in
from danlu.services.platform.operations import Operation
from danlu.web.session import Session, aside

ROLES: tuple[Role, ...] = get_args(Role)
"""Each may do what those before it may."""


@dataclass(frozen=True)
class Rights:
    """A role in one project."""

    s: Session
    role: Role | None

    def may(self, operation: Operation[..., Any]) -> bool:
        """Whether the role suffices for an operation that asks for one."""
        return self.role is not None and ROLES.index(self.role) >= ROLES.index(operation.right)

    def why_not(self, operation: Operation[..., Any]) -> str | None:
        """What is said beside something that the role may not do; None where it may."""
        if self.may(operation):
            return None
        s = self.s
        return s.t("basic.needs_role", needed=s.t(f"basic.role_{operation.right}"), role=s.t(f"basic.role_{self.role or 'none'}"))


async def rights_in(s: Session, project_id: str) -> Rights:
    """What the one who looks may do in a project now."""

    def ask() -> Role | None:
        with s.platform.database.reading() as connection:
            return role_in(connection, s.actor, project_id)

    return Rights(s, await aside(ask))
