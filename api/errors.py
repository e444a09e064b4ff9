"""The one place that decides HTTP statuses: every error becomes the envelope of spec section 5, and nothing internal leaks.

Neighbours: hotswap.domain.errors says what happened; api.middleware catches what nobody expected; api.app installs this.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from api.methods import Methods
from api.security import charge_stranger
from hotswap.domain import errors
from hotswap.domain.base import Instant, Model
from hotswap.domain.errors import FieldFault, HotSwapError
from hotswap.domain.wording import plain_words

log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 2
"""What a 503 advises: a server of ours is restarted within about this time (design section 5: 0.6 s measured)."""

INTERNAL_MESSAGE = "an unexpected error happened; it was logged under the trace id given here"


class Detail(Model):
    field: str
    message: str


class ErrorBody(Model):
    code: str
    message: str
    details: tuple[Detail, ...] = ()
    trace_id: str = Field(description="the request's trace: the api's log has it")
    timestamp: Instant


class ErrorEnvelope(Model):
    """What every refusal looks like."""

    error: ErrorBody


_STATUSES: tuple[tuple[type[HotSwapError], int, str], ...] = (
    (errors.DependencyConflict, 400, "DEPENDENCY_CONFLICT"),
    (errors.InvalidInput, 400, "VALIDATION_ERROR"),
    (errors.TrialFailed, 400, "VALIDATION_ERROR"),
    (errors.Unauthorized, 401, "UNAUTHORIZED"),
    (errors.Forbidden, 403, "FORBIDDEN"),
    (errors.NotFound, 404, "NOT_FOUND"),
    (errors.ArtifactMissing, 404, "NOT_FOUND"),
    (errors.Conflict, 409, "CONFLICT"),
    (errors.StaleGeneration, 409, "CONFLICT"),
    (errors.ArtifactTooLarge, 413, "PAYLOAD_TOO_LARGE"),
    (errors.RateLimited, 429, "RATE_LIMIT_EXCEEDED"),
    (errors.Unavailable, 503, "SERVICE_UNAVAILABLE"),
    (errors.SandboxUnavailable, 503, "SERVICE_UNAVAILABLE"),
)
"""First match wins, so that a class stands before its bases. What is not listed is a fault of ours: 500."""

_CODE_OF_STATUS: Mapping[int, str] = {
    400: "VALIDATION_ERROR",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    409: "CONFLICT",
    413: "PAYLOAD_TOO_LARGE",
    415: "VALIDATION_ERROR",
    429: "RATE_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "SERVICE_UNAVAILABLE",
}

DOCUMENTED: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorEnvelope, "description": HTTPStatus(status).phrase}
    for status in (400, 401, 403, 404, 409, 413, 429, 500, 503)
}
"""For the OpenAPI document: every route of /api/v1 may answer these."""


def is_of_the_api(path: str) -> bool:
    return path.startswith("/api/")


def status_of(error: HotSwapError) -> tuple[int, str]:
    """HTTP status and code of an error of the domain."""
    for kind, status, code in _STATUSES:
        if isinstance(error, kind):
            return status, code
    return 500, "INTERNAL_ERROR"


def envelope(
    status: int,
    code: str,
    message: str,
    trace_id: str,
    details: Sequence[FieldFault] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer itself. 401 says how to authenticate, 503 when to come back."""
    body = ErrorEnvelope(
        error=ErrorBody(
            code=code,
            message=message,
            details=tuple(Detail(field=fault.field, message=fault.message) for fault in details),
            trace_id=trace_id,
            timestamp=datetime.now(UTC),
        )
    )
    response = Response(body.model_dump_json(), status_code=status, media_type="application/json", headers=headers)
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def internal_error(trace_id: str) -> Response:
    """The answer to what nobody expected. The caller logs the error itself."""
    return envelope(500, "INTERNAL_ERROR", INTERNAL_MESSAGE, trace_id)


def install(app: FastAPI) -> None:
    """Make `app` answer every error with the envelope."""
    app.add_exception_handler(HotSwapError, _on_domain_error)
    app.add_exception_handler(RequestValidationError, _on_wrong_request)
    app.add_exception_handler(HTTPException, _on_http_error)


def _trace_id(request: Request) -> str:
    return str(request.scope.get("state", {}).get("trace_id", ""))


async def _on_domain_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HotSwapError)
    status, code = status_of(error)
    if status == 500:
        log.error("%s on %s", type(error).__name__, request.url.path, exc_info=error)
        return internal_error(_trace_id(request))
    if status == 503:
        log.warning("%s on %s: %s", type(error).__name__, request.url.path, error.message)
    headers = {"Retry-After": str(error.retry_seconds)} if isinstance(error, errors.RateLimited) else None
    return envelope(status, code, error.message, _trace_id(request), error.faults, headers)


async def _on_wrong_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [_fault(item) for item in error.errors()]
    named = "; ".join(f"{fault.field}: {fault.message}" for fault in faults[:5])
    return envelope(400, "VALIDATION_ERROR", f"the request is wrong: {named}", _trace_id(request), faults)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code in (404, 405) and "limit" not in request.scope["state"] and is_of_the_api(request.url.path):
        try:
            await charge_stranger(request)
        except errors.RateLimited as refused:
            return await _on_domain_error(request, refused)
    code = _CODE_OF_STATUS.get(error.status_code, "VALIDATION_ERROR" if error.status_code < 500 else "INTERNAL_ERROR")
    message = str(error.detail)
    if error.status_code == 404 and message == HTTPStatus.NOT_FOUND.phrase:
        message = f"nothing is at {request.url.path}; GET /docs lists the routes"
    elif error.status_code == 405:
        methods: Methods = request.app.state.methods
        allowed = ", ".join(methods.of(request.scope["path"]))
        message = f"{request.method} is not possible here; allowed: {allowed}"
        return envelope(405, code, message, _trace_id(request), headers={"Allow": allowed})
    return envelope(error.status_code, code, message, _trace_id(request), headers=error.headers)


def _fault(item: Mapping[str, Any]) -> FieldFault:
    """One of pydantic's errors as ours: the camelCase path as the sender wrote it, the fault, the remedy."""
    place, *path = item["loc"]
    kind, message = item["type"], plain_words(item)
    field = ".".join(str(part) for part in path)
    if kind == "json_invalid":
        reason = item.get("ctx", {}).get("error", message)
        return FieldFault("(body)", f"is not JSON: {reason} at character {path[0] if path else 0}")
    if place == "body" and not path and kind in ("model_attributes_type", "model_type", "dict_type", "missing"):
        return FieldFault("(body)", "must be a JSON object, sent with Content-Type: application/json")
    if kind == "extra_forbidden":
        message = "is not known here; remove it or correct its spelling"
    elif kind == "missing":
        message = "is required"
    elif not field and ": " in message:
        field, message = message.split(": ", 1)
    return FieldFault(field or f"({place})", message)
