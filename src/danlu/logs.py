"""Logs of the server and the worker: one line per event, without secrets and without what data files hold.

Code logs ids, counts and names of operations, never records, prompts or bodies. What slips in as a key, a cookie or a password of a
URL is blotted out here, after formatting, so that tracebacks are covered too.
"""

import logging
import os
import re
import sys
import time
import warnings
from contextvars import ContextVar
from typing import Any

import orjson

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Of the request that is being answered."""
FORMATS = ("plain", "json")
BLOTTED = "***"
_SECRETS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\b(dl_[0-9a-z]+_)[\w-]{8,}"), rf"\1{BLOTTED}"),
    (re.compile(r"\b(hf_|sk-|ghp_|xox[a-z]-)[\w-]{8,}"), rf"\1{BLOTTED}"),
    (re.compile(r"(://[^\s:/@]*:)[^\s/@]+@"), rf"\1{BLOTTED}@"),
    (re.compile(r"(?i)\b((?:set-)?cookie[\"']?\s*[:=]\s*[\"']?)[^\r\n\"']+"), rf"\1{BLOTTED}"),
    (re.compile(r"(?i)\b(bearer|basic) +[\w.~+/=-]+"), rf"\1 {BLOTTED}"),
    (
        re.compile(
            r"(?i)((?:password|passwd|secret|token|(?:api|account|access)[_-]?key|signature|authorization|\bsig)[\"']?\s*[:=]\s*[\"']?)"
            r"(?!bearer |basic )[^\s\"',;&})]+"
        ),
        rf"\1{BLOTTED}",
    ),
)
_OWN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def redact(text: str) -> str:
    """Blot out what looks like a key, a cookie or a password."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


class PlainFormatter(logging.Formatter):
    """For people: time, level, where, what, and the fields that were given."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line (several with a traceback)."""
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        line = f"{moment} {record.levelname:7} {record.name}: {_one_line(record.getMessage())}{fields}"
        return redact(line + ("\n" + self.formatException(record.exc_info) if record.exc_info else ""))


class JsonFormatter(logging.Formatter):
    """For programs: one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {"at": round(record.created, 3), "level": record.levelname.lower(), "logger": record.name, "message": redact(record.getMessage())}
        line |= {name: redact(value) if isinstance(value, str) else value for name, value in _fields(record).items()}
        if record.exc_info:
            line["traceback"] = redact(self.formatException(record.exc_info))
        return orjson.dumps(line, default=str).decode()


def configure(format: str = "plain", level: str = "INFO") -> None:
    """Send everything that is logged in this process to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else PlainFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("adlfs", "aiobotocore", "alembic", "asyncio", "azure", "gcsfs", "httpcore", "httpx", "sqlalchemy", "uvicorn"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    found = {name: value for name, value in vars(record).items() if name not in _OWN}
    return found | ({"request_id": request_id.get()} if request_id.get() else {})


def _one_line(text: str) -> str:
    """A message cannot begin a line of its own, nor steer a terminal."""
    return "".join(c if c.isprintable() else " " if c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


def quieten_libraries() -> None:
    """Keep bars and advice to programmers of the training libraries out of the live view and out of jobs' logs; before they are imported."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
