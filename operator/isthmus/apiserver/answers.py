"""From HTTP answers, and the lack of one, to the exceptions of `isthmus.errors`.

Pure, and apart from the client, so that the mapping can be read and tested as a table.
"""

import json

import aiohttp

from isthmus.apiserver.objects import Object, dig
from isthmus.errors import (
    ApiAlreadyExistsError,
    ApiConflictError,
    ApiError,
    ApiForbiddenError,
    ApiInvalidError,
    ApiNotFoundError,
    ApiUnavailableError,
    ApiUnclearError,
)

_UNAVAILABLE = frozenset({408, 410, 425, 429, 503})
"""Refusals to do the work now; 503 is what a starting or stopping API server says."""


class ListExpiredError(ApiUnavailableError):
    """The continue token of a paginated list is too old (410): list again from the start."""


def error_of(*, status: int, body: bytes, doing: str, writes: bool) -> ApiError:
    """Return the exception for an HTTP answer that is not a success.

    Args:
        status: HTTP status.
        body: the answer, usually a `Status` object.
        doing: what was tried, e.g. `patch pods team-a/llama`.
        writes: whether the request could have changed something.
    """
    answer = parse(body)
    reason = str(answer.get("reason") or "") if answer else ""
    text = str(answer.get("message") or "") if answer else body[:200].decode("utf-8", "replace")
    message = f"{doing}: {status} {reason or 'without a reason'}: {text.strip()}"
    error = _class_of(status=status, reason=reason, writes=writes)
    if status == 422 and _is_other_uid(answer):
        error = ApiConflictError
    if status == 500 and _MISTYPED_APPLY in text:
        error = ApiInvalidError
    return error(message, status=status, reason=reason)


_MISTYPED_APPLY = "failed to create typed patch object"
"""What a server-side apply with an unknown or mistyped field gets, with status 500 (1.36)."""


def _is_other_uid(answer: Object | None) -> bool:
    """Tell whether a patch was refused for its uid: "field is immutable" instead of a conflict."""
    causes = dig(answer, "details", "causes", default=[])
    return isinstance(causes, list) and any(dig(c, "field") == "metadata.uid" for c in causes)


def _class_of(*, status: int, reason: str, writes: bool) -> type[ApiError]:
    if status == 409:
        return ApiAlreadyExistsError if reason == "AlreadyExists" else ApiConflictError
    if status == 404:
        return ApiNotFoundError
    if status in (401, 403):
        return ApiForbiddenError
    if status == 410 and reason in ("Expired", "Gone"):
        return ListExpiredError
    if status in _UNAVAILABLE:
        return ApiUnavailableError
    if status >= 500:
        # etcd timed out (500), the API server's own limit (504), a proxy in between (502): the
        # write may have been committed.
        return ApiUnclearError if writes else ApiUnavailableError
    return ApiInvalidError


def error_without_answer(error: Exception, *, doing: str, writes: bool) -> ApiUnavailableError:
    """Return the exception for a request that got no complete answer.

    A connection that was never made, or never got free within the limit, carried no request; after
    that a write may or may not have been committed.
    """
    never_sent = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
    what = str(error) or type(error).__name__
    if isinstance(error, TimeoutError) and not str(error):
        what = "no answer within the time limit"
    if writes and not never_sent:
        return ApiUnclearError(f"{doing}: {what}; it may have been committed")
    return ApiUnavailableError(f"{doing}: {what}")


def parse(body: bytes) -> Object | None:
    """Return the JSON object in `body`, None where there is none."""
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
