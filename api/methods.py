"""Which methods each path takes: what a 405 tells in Allow, and no fixed word is taken for somebody's id.

FastAPI answers with the methods of the first route that fits, and reads GET /deployments/plan as the deployment 'plan'.
RFC 9110 (15.5.6) asks for all methods, and OpenAPI for the most fixed path. Neighbours: api.strict asks before a route's
gate, api.errors when no route took the method.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException


@dataclass
class _Path:
    template: str
    regex: re.Pattern[str]
    methods: set[str] = field(default_factory=set)

    @property
    def placeholders(self) -> int:
        return self.template.count("{")


class Methods:
    """Of an app made of these routers. Asks them, not the app: that would prepare every route, 0.3 s for each app."""

    def __init__(self, routers: Iterable[APIRouter]) -> None:
        paths: dict[str, _Path] = {}
        for route in (route for router in routers for route in router.routes):
            if isinstance(route, APIRoute):
                found = paths.setdefault(route.path, _Path(route.path, route.path_regex))
                found.methods.update(route.methods or ())
        self._paths = sorted(paths.values(), key=lambda one: one.placeholders)
        self._shadowed = [one for one in self._paths if self._is_shadowed(one)]

    def _is_shadowed(self, path: _Path) -> bool:
        """Whether a path with more placeholders fits all that this one fits."""
        return any(one.placeholders > path.placeholders and one.regex.match(path.template) for one in self._paths)

    def of(self, path: str) -> list[str]:
        """Sorted; of the path with the fewest placeholders that fits. Empty for a path that is none."""
        return next((sorted(one.methods) for one in self._paths if one.regex.match(path)), [])

    def check(self, method: str, path: str) -> None:
        """Raises HTTPException 405 where a fixed word of a path was about to be taken for an id."""
        for one in self._shadowed:
            if one.regex.match(path):
                if method not in one.methods:
                    raise HTTPException(405, headers={"Allow": ", ".join(sorted(one.methods))})
                return
