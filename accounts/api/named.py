"""Resources that are written by their names: resellers, tenants, domains, mailboxes, aliases."""

from typing import Any, ClassVar

from django.http import HttpResponseBase
from drf_spectacular.utils import OpenApiResponse
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from accounts import permissions
from accounts.addresses import BadAddress
from accounts.api.problems import FieldError, Problem
from accounts.api.views import Resource

GONE = OpenApiResponse(description="It is gone, or was.")


class Named(Resource):
    """What is created by POST, brought to a state by PUT whether or not it is there, changed by PATCH, and closed.

    Fields that a body does not name stay as they are.
    """

    wanted: ClassVar[type[BaseSerializer[Any]]]
    """What a body may say. The name in it can only be that of the address."""
    added: ClassVar[type[BaseSerializer[Any]]]
    """What the body of a POST may say: it needs the name."""

    # --- What subclasses say ---------------------------------------------------------------------------------------

    def normal(self, name: str) -> str:
        """The normal form of a name. Raises `BadAddress`."""
        return name

    def add(self, name: str, values: dict[str, Any]) -> tuple[Any, bool]:
        """Add it with these values; and whether it is new."""
        raise NotImplementedError

    def change(self, row: Any, values: dict[str, Any]) -> None:
        """Give it these values."""
        raise NotImplementedError

    def remove(self, row: Any) -> None:
        """End it, and say what that does (`would`)."""
        raise NotImplementedError

    # --- The handlers ----------------------------------------------------------------------------------------------

    def look_up(self, name: str, *, lock: bool = False) -> Any:
        try:
            return super().look_up(self.normal(name), lock=lock)
        except BadAddress:
            return None

    def create(self, request: Request) -> HttpResponseBase:
        """Add one. 409 if it is there already."""
        values = self.body(self.added)
        field = self.lookup_field
        row, added = self.add(values.pop(field), values)
        if not added:
            text = f"There is {getattr(row, field)} already."
            raise Problem("taken", text, errors=[FieldError(field, "taken", text)])
        return self._written(row, is_new=True)

    def update(self, request: Request, **names: str) -> HttpResponseBase:
        """Add it, or bring it to this state."""
        row = self.find_or_none(lock=True)
        if row is None and not permissions.may(self.principal, self.resource, "create"):
            raise Problem("not-found")
        values = self._values_for(names[self.lookup_field])
        if row is None:
            row, added = self._added(names[self.lookup_field], values)
            if added:
                return self._written(row, is_new=True)
        self.change(row, values)
        return self._written(row, is_new=False)

    def partial_update(self, request: Request, **names: str) -> HttpResponseBase:
        """Change what the body names."""
        row = self.find(lock=True)
        self.change(row, self._values_for(names[self.lookup_field]))
        return self._written(row, is_new=False)

    def destroy(self, request: Request, **names: str) -> HttpResponseBase:
        """End it."""
        self.remove(self.find(lock=True))
        return Response(status=204)

    def _added(self, name: str, values: dict[str, Any]) -> tuple[Any, bool]:
        try:
            return self.add(name, values)
        except Problem as problem:
            if problem.code == "unknown-domain" and [error.field for error in problem.errors] == [self.lookup_field]:
                raise Problem("not-found") from None  # it is the address of the request that names it
            raise

    def _values_for(self, name: str) -> dict[str, Any]:
        """The body's values; the name in it can only be that of the address."""
        values = self.body(self.wanted)
        try:
            if self.normal(values.pop(self.lookup_field, name)) == self.normal(name):
                return values
        except BadAddress:
            raise Problem("not-found") from None
        raise Problem(
            "invalid", errors=[FieldError(self.lookup_field, "differs", "It is another than the address names.")]
        )

    def _written(self, row: Any, *, is_new: bool) -> HttpResponseBase:
        fresh = self.rows().get(pk=row.pk)
        name = getattr(fresh, self.lookup_field)
        if self._said is None:
            self.would(
                "create" if is_new else "change", f"{'adds' if is_new else 'changes'} {name}", **{self.resource: 1}
            )
        headers = {"Location": f"/api/v1/{self.resource}/{name}/"} if is_new else None
        return self.answer(fresh, status=201 if is_new else 200, headers=headers)
