"""From a server's `application/problem+json` (RFC 9457) back to the error that was raised there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import httpx

from danlu.errors import DanluError, ServerError

MAX_SHOWN = 200


def error_of(response: httpx.Response) -> DanluError:
    """The error that an answer tells, as the class that was raised on the server."""
    if "problem+json" not in response.headers.get("content-type", ""):
        return unexpected(response)
    try:
        told = response.json()
        return error_from(told | {"what": told.get("what") or told.get("detail") or told.get("title") or f"refused with {response.status_code}"})
    except (ValueError, AttributeError, TypeError):
        return unexpected(response)


def error_from(told: Mapping[str, Any]) -> DanluError:
    """The error of a code and its sentences (`DanluError.to_dict`), as the class of that code."""
    code, what, why, fix = (str(told.get(name) or "") for name in ("code", "what", "why", "fix"))
    cls = _classes().get(code)
    if cls is not None:
        return cls(what, why=why, fix=fix)
    return ServerError(what, why=why or f"{code or 'an answer without a code'} is not known to this version", fix=fix or "update Danlu here or there")


def unexpected(response: httpx.Response, why: str = "") -> ServerError:
    """An answer that no Danlu server of this version gives."""
    kind = response.headers.get("content-type", "no content type").partition(";")[0]
    where = f"{response.request.method} {response.request.url.copy_with(query=None)}"
    if response.is_redirect:
        fix = f"give the address it leads to: {response.headers.get('location', '')[:MAX_SHOWN]}"
        return ServerError(f"{where} leads elsewhere", why="a key is sent to the address it was given for, and nowhere else", fix=fix)
    return ServerError(
        f"{where} was answered with {response.status_code} ({kind})",
        why=why or "it is not what a Danlu server of this version answers",
        fix="check the address, what stands between here and the server (a proxy), and that both have the same version",
    )


def unreachable(url: str, error: httpx.HTTPError) -> ServerError:
    """No answer at all."""
    why = str(error)[:MAX_SHOWN] or type(error).__name__
    return ServerError(f"no answer from {url}", why=why, fix="check the address and that the server runs (`danlu studio`); what was asked can be asked again")


@cache
def _classes() -> dict[str, type[DanluError]]:
    def tree(root: type[DanluError]) -> Iterator[type[DanluError]]:
        yield root
        for child in root.__subclasses__():
            yield from tree(child)

    return {cls.code: cls for cls in reversed(list(tree(DanluError)))}
