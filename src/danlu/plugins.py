"""One registry type for everything a user can add in one file."""

import importlib
import pkgutil
import threading
from collections.abc import Iterator
from difflib import get_close_matches
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from danlu.errors import UnknownNameError

C = TypeVar("C", bound=BaseModel)
T = TypeVar("T", bound=BaseModel)
_LOADING = threading.RLock()
"""One for all registries, since loading one may load another: a second thread waits until all names are there."""


class Registry(Generic[C]):
    """Config classes by their `type`, found in one package and one entry-point group of the same name.

    Used as a pydantic annotation it turns `{"type": "lora", ...}` (or plain `"lora"`) into the class that
    registered `lora`, and contributes a `oneOf` to the JSON Schema: a name, or a mapping that names its type.
    """

    def __init__(self, noun: str, *, package: str) -> None:
        self.noun, self.package = noun, package
        self._classes: dict[str, type[C]] = {}
        self._is_loading = self._is_loaded = False

    def register(self, cls: type[T]) -> type[T]:
        """Class decorator: make `cls` known under the default of its `type` field."""
        name = cls.model_fields["type"].default
        if self._classes.setdefault(name, cls) is not cls:  # type: ignore[arg-type]
            raise ValueError(f"{self.noun} {name!r} is registered twice: {self._classes[name]}, {cls}")
        return cls

    def __getitem__(self, name: str) -> type[C]:
        self._load()
        if name in self._classes:
            return self._classes[name]
        near = get_close_matches(str(name), self._classes, n=1)
        raise UnknownNameError(
            f"unknown {self.noun} {name!r}",
            why=f"installed: {', '.join(sorted(self._classes))}",
            fix=f"use {near[0]!r}" if near else f"use one of these, or install a plugin that provides {name!r}",
        )

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._classes))

    def parse(self, value: Any) -> Any:
        """Turn a mapping with a `type`, or a bare type name, into its config object."""
        if isinstance(value, BaseModel):
            return value
        if isinstance(value, str):
            value = {"type": value}
        if not isinstance(value, dict) or not isinstance(value.get("type"), str):
            raise ValueError(f"expected a mapping with a `type`, one of: {', '.join(self)}")
        return self[value["type"]].model_validate(value)

    def _load(self) -> None:
        if self._is_loaded:
            return
        with _LOADING:
            if self._is_loaded or self._is_loading:  # a plugin that is being imported may ask, too
                return
            self._is_loading = True
            try:
                package = importlib.import_module(self.package)
                for module in pkgutil.iter_modules(package.__path__, f"{self.package}."):
                    importlib.import_module(module.name)
                for entry in entry_points(group=self.package):
                    entry.load()
                self._is_loaded = True
            finally:
                self._is_loading = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.parse, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        branches = [handler(self[name].__pydantic_core_schema__) for name in self]
        return {"oneOf": [{"type": "string", "enum": list(self)}, *({**branch, "required": ["type", *branch.get("required", [])]} for branch in branches)]}
