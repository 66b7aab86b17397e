"""What anybody may read of the API: its description, a page to browse it, and what its codes mean."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt

from accounts.api import schema
from accounts.api.problems import KINDS, TYPES, Problem


def _read_only(page: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    @csrf_exempt
    @wraps(page)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method not in ("GET", "HEAD"):
            return Problem("method-not-allowed", headers={"Allow": "GET, HEAD"}).answer()
        return page(request, *args, **kwargs)

    return answer


@_read_only
def description(request: HttpRequest) -> HttpResponse:
    """OpenAPI 3.1."""
    return HttpResponse(schema.as_json(), content_type="application/json")


@_read_only
def docs(request: HttpRequest) -> HttpResponse:
    """The description, to browse and to try; needs nothing from elsewhere."""
    return render(request, "api/docs.html")


@_read_only
def problems(request: HttpRequest) -> HttpResponse:
    """All codes."""
    return JsonResponse({"items": [_explained(code) for code in KINDS]})


@_read_only
def problem(request: HttpRequest, code: str) -> HttpResponse:
    """What one code means."""
    if code not in KINDS:
        raise Http404
    return JsonResponse(_explained(code))


def _explained(code: str) -> dict[str, object]:
    return {"type": f"{TYPES}{code}/", "code": code, **KINDS[code]._asdict()}
