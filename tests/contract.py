"""Holds every answer that a test gets against ``/v1/openapi.json``, as another client would read it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import jsonschema_rs

from hengd.app import App
from hengd.http.openapi import openapi
from henge_protocol import __version__


class Contract:
    """What the running daemon says of its own routes."""

    def __init__(self, app: App) -> None:
        self._app = app

    @cached_property
    def document(self) -> dict[str, Any]:
        """The OpenAPI document, made as the one that is served."""
        return openapi(self._app.routes, __version__)

    @cached_property
    def _paths(self) -> list[tuple[re.Pattern[str], dict[str, Any]]]:
        """The fixed ones first, as OpenAPI 3.1 has it."""
        found = sorted(self.document["paths"].items(), key=lambda item: item[0].count("{"))
        forms = [(path, re.escape(path).replace(r"\{secret\}", ".+")) for path, _ in found]
        return [
            (re.compile(re.sub(r"\\{\w+\\}", "[^/]+", form)), item)
            for (_, form), (_, item) in zip(forms, found, strict=True)
        ]

    def check(self, method: str, path: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Fail where an answer is not one of those that its route declares; paths without route are not looked at."""
        operation = self._operation(method, path.partition("?")[0])
        if operation is None:
            return
        responses = operation["responses"]
        response = responses.get(str(status)) or responses.get(f"{status // 100}XX")
        assert response is not None, f"{method} {path} answers {status}, which it does not declare"
        if not response.get("content"):
            assert not body, f"{method} {path} answers {status} with a body"
            return
        media = headers.get("Content-Type", "").partition(";")[0]
        assert media in response["content"], f"{method} {path} answers {media}"
        if media.endswith("json") and body:
            self._check_json(f"{method} {path} {status}", response["content"][media]["schema"], json.loads(body))

    def _operation(self, method: str, path: str) -> dict[str, Any] | None:
        for pattern, item in self._paths:
            if pattern.fullmatch(path) and method.lower() in item:
                return dict(item[method.lower()])
        return None

    def _check_json(self, what: str, schema: dict[str, Any], value: object) -> None:
        whole = {**schema, "components": self.document["components"]}
        for error in jsonschema_rs.Draft202012Validator(whole).iter_errors(value):
            raise AssertionError(f"{what} is not as declared: {error.instance_path}: {error.message}")
