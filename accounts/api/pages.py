"""What anybody may read of the API: its description, a page to browse it, and what its codes mean."""

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from accounts.api import schema
from accounts.api.problems import KINDS, TYPES


@require_safe
def description(request: HttpRequest) -> HttpResponse:
    """OpenAPI 3.1."""
    return HttpResponse(schema.as_json(), content_type="application/json")


@require_safe
def docs(request: HttpRequest) -> HttpResponse:
    """The description, to browse and to try; needs nothing from elsewhere."""
    return render(request, "api/docs.html")


@require_safe
def problems(request: HttpRequest) -> HttpResponse:
    """All codes."""
    return JsonResponse({"items": [_explained(code) for code in KINDS]})


@require_safe
def problem(request: HttpRequest, code: str) -> HttpResponse:
    """What one code means."""
    if code not in KINDS:
        raise Http404
    return JsonResponse(_explained(code))


def _explained(code: str) -> dict[str, object]:
    return {"type": f"{TYPES}{code}/", "code": code, **KINDS[code]._asdict()}
