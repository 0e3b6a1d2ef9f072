"""The studio: web pages over the operations. The only part that knows NiceGUI.

    danlu.web.mount(app, platform)

A page is a view of the database: it holds nothing that is not found again after a reload. One page is one module in `pages/`; the
next one is made like this, and gets its texts in `words/`:

    @page("/queue", title="queue.title", nav="queue")
    async def queue(s: Session) -> None: ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

    from danlu.services.platform.platform import Platform
    from danlu.web.session import GetActor


def mount(app: FastAPI, platform: Platform, get_actor: GetActor) -> None:
    """Put the pages on the application, below its own routes; once in a process, before the server starts.

    `get_actor` says who a request comes from; it is asked anew for everything that a page does.
    """
    from danlu.web import mounting

    mounting.mount(app, platform, get_actor)
