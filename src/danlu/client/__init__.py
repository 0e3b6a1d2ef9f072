"""The Python API: one `Studio` over a home folder of this machine or over a server, with the same methods."""

from danlu.errors import MissingExtraError

try:
    from danlu.client.studio import Studio
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("alembic", "httpx", "sqlalchemy"):
        raise
    raise MissingExtraError(
        f"the platform needs the package {error.name}", why="it comes with the extra `studio`", fix="pip install 'danlu[studio]'"
    ) from error

__all__ = ["Studio"]
