"""Pages of the admin that show what exists for whoever looks, and nothing else; every page is one of these."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import quote, unquote
from django.contrib.admin.widgets import AutocompleteSelect
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.db.models import DateTimeField, Q, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.functional import cached_property
from django.utils.html import format_html_join
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as _lazy
from django.views.decorators.http import require_http_methods
from unfold import widgets

from accounts import permissions, principals
from accounts.models import Mailbox, Role, Tenant

if TYPE_CHECKING:  # unfold has no types
    from django.contrib.admin import ModelAdmin
else:
    from unfold.admin import ModelAdmin


class Bounded(Paginator):  # type: ignore[type-arg] # Django's is not generic when it runs
    """Pages of the first rows. Counting a large table takes longer than showing a page of it."""

    MOST: Final = 10_000

    @cached_property
    def count(self) -> int:
        """How many rows there are, up to `MOST`."""
        return int(cast("QuerySet[Any]", self.object_list).order_by()[: self.MOST].count())


class Choice(AutocompleteSelect):
    """One of many rows. Django's own fails on what cannot be a key."""

    def optgroups(self, name: str, value: Sequence[str], attr: Any = None) -> Any:
        model = self.field.remote_field.model
        return super().optgroups(name, [text for text in value if _is_key(text, model)], attr)


class RowPage(NamedTuple):
    """A page about one row beside its form, linked from it for whoever may do what stands there.

    `view` answers GET without changing anything, and does it on POST. `applies` says for which rows there is anything
    to do.
    """

    name: str
    """In the URL, and at the end of the URL's name."""
    title: Any
    """A text, or one that is translated when it is shown."""
    resource: str
    verb: str
    view: Callable[["Scoped", HttpRequest, Any], HttpResponseBase]
    applies: Callable[[Any], bool] = lambda row: True
    permits: Callable[[HttpRequest, Any], bool] = lambda request, row: True
    """Whether whoever looks may do it to this row, where the table does not say all."""
    listed: bool = True
    """Whether it is linked from every page about the row; others are reached from where they belong."""


class Scoped(ModelAdmin):  # type: ignore[type-arg] # Django's is not generic when it runs
    """A page of rows that exist for whoever looks; others do not, in whatever way somebody asks for them.

    What he may do to them is said by the same table as in the API (`accounts.permissions`): `resource` is its row, and
    `verbs` what Django's four ways are called there. The owner of a mailbox may do nothing here. `narrowed_by` names
    the parameters of the address that a list takes besides those of its filters: a free choice of them would answer
    questions about passwords.
    """

    paginator = Bounded
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50
    list_max_show_all = 0
    view_on_site = False
    list_before_template = "admin/accounts/mailbox_tabs.html"
    change_form_outer_before_template = "admin/accounts/mailbox_tabs.html"
    narrowed_by: ClassVar[Sequence[str]] = ()
    row_pages: ClassVar[Sequence[RowPage]] = ()
    front: ClassVar[str] = "change"
    """The page about a row, by its URL's name, to which lists and the search lead."""
    audited: ClassVar[bool] = True
    """Whether the audit tells of these rows."""
    resource: ClassVar[str]
    verbs: ClassVar[Mapping[str, str]] = {"view": "read", "add": "create", "change": "change", "delete": "delete"}

    def may(self, request: HttpRequest, verb: str) -> bool:
        """Whether whoever looks may do that to what exists for him."""
        return may(request, self.resource, verb)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, self.verbs["view"])

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.may(request, self.verbs["add"])

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, self.verbs["change"])

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, self.verbs["delete"])

    def get_urls(self) -> list[Any]:
        name = self.opts.label_lower.replace(".", "_")
        return [
            path(
                f"<path:object_id>/{page.name}/",
                self.admin_site.admin_view(require_http_methods(["GET", "POST"])(self._row_view(page))),
                name=f"{name}_{page.name}",
            )
            for page in self.row_pages
        ] + super().get_urls()

    def _row_view(self, page: RowPage) -> Callable[..., HttpResponseBase]:
        def view(request: HttpRequest, object_id: str) -> HttpResponseBase:
            if not (self.has_view_permission(request) and may(request, page.resource, page.verb)):
                raise PermissionDenied
            row = self.get_object(request, unquote(object_id))
            if row is None:
                nothing: HttpResponseBase = self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined] # Django's own way to say it
                return nothing
            if not page.permits(request, row):
                raise PermissionDenied
            if not page.applies(row):
                self.message_user(
                    request,
                    _("%(title)s: that cannot be done with it as it is.") % {"title": page.title},
                    messages.WARNING,
                )
                return self.to_row(row)
            return page.view(self, request, row)

        return view

    def to_row(self, row: Any) -> HttpResponseRedirect:
        """Go to a row's form."""
        return HttpResponseRedirect(reverse(self._url("change"), args=[quote(row.pk)]))

    def to_list(self) -> HttpResponseRedirect:
        """Go to the list."""
        return HttpResponseRedirect(reverse(self._url("changelist")))

    def asking(self, request: HttpRequest, row: Any, title: Any, **context: Any) -> HttpResponse:
        """A page about one row that says what would be done, and asks.

        `facts` are pairs of a name and what it is, `refusals` sentences; `form` is asked for, `kept` are values that
        come along, and `button` is what does it.
        """
        if context.get("form"):
            dress(context["form"])
        context |= {**self.admin_site.each_context(request), "opts": self.opts, "title": title, "object": row}
        context.setdefault("back", reverse(self._url("change"), args=[quote(row.pk)]))
        return TemplateResponse(request, "admin/accounts/asking.html", context)

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        row = kwargs.get("obj")
        context["audited"] = self.audited
        context["row_pages"] = self.pages_of(request, row)
        return super().render_change_form(request, context, *args, **kwargs)

    def pages_of(self, request: HttpRequest, row: Any) -> list[tuple[str, str]]:
        """The pages that are linked from all those about a row, for whoever looks: title and URL."""
        return [
            (page.title, reverse(self._url(page.name), args=[quote(row.pk)]))
            for page in self.row_pages
            if row is not None
            and page.listed
            and page.applies(row)
            and may(request, page.resource, page.verb)
            and page.permits(request, row)
        ]

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """What the audit tells of a row, to whoever may read that: it knows of changes from everywhere."""
        query = {"target_kind__exact": self.opts.model_name or "", "target_id__exact": unquote(object_id)}
        return HttpResponseRedirect(f"{reverse('admin:accounts_auditevent_changelist')}?{urlencode(query)}")

    def _url(self, view: str) -> str:
        return f"admin:{self.opts.label_lower.replace('.', '_')}_{view}"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return _visible(self.model, request).order_by(*self.get_ordering(request))

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """What an address fills a form in with. Django's own takes anything, also for a time."""
        found = super().get_changeform_initial_data(request)
        names = {field.name for field in self.opts.get_fields() if isinstance(field, DateTimeField)}
        return {name: value for name, value in found.items() if name not in names}

    def get_field_queryset(self, db: Any, db_field: Any, request: HttpRequest) -> QuerySet[Any]:
        return _visible(db_field.related_model, request)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name in self.get_autocomplete_fields(request):
            kwargs["widget"] = Choice(db_field, self.admin_site)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def get_list_display(self, request: HttpRequest) -> Any:
        """A tenant's staff need not read the tenant's name in each row."""
        shown = super().get_list_display(request)
        return shown if sees_tenants(request) else [column for column in shown if column != "tenant"]

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        assert request
        names = {"tenant__id__exact", *self.narrowed_by}
        for item in self.get_list_filter(request):
            if isinstance(item, str):
                names |= {f"{item}__exact", f"{item}__isnull"}
            else:
                names.add(item.parameter_name)  # type: ignore[union-attr] # all others are `SimpleListFilter`
        return lookup in names

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip().lower()
        if "\0" in term:
            return queryset.none(), False
        return (queryset.filter(self.matching(term)) if term else queryset), False

    def matching(self, term: str) -> Q:
        """What a search for `term`, in small letters, finds: one of `search_fields`, each a lookup."""
        found = Q()
        for lookup in self.search_fields:
            found |= Q(**{lookup: term})
        return found

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        if any("\0" in value for values in request.GET.lists() for value in values[1]):
            return HttpResponseRedirect(f"{request.path}?e=1")  # as for other parameters that cannot be
        return super().changelist_view(request, (extra_context or {}) | {"mailbox": self._narrowed_to(request)})

    def _narrowed_to(self, request: HttpRequest) -> Mailbox | None:
        """The mailbox whose rows the list shows only."""
        for name in {"mailbox__id__exact", "mailbox_id__exact"}.intersection(self.narrowed_by):
            if _is_key(request.GET.get(name, ""), Mailbox) and may(request, "mailboxes", "read"):
                mailbox: Mailbox | None = Mailbox.objects.visible_to(request.user).filter(pk=request.GET[name]).first()
                return mailbox
        return None

    def response_action(self, request: HttpRequest, queryset: QuerySet[Any], *more: Any) -> Any:
        if not all(_is_key(text, self.model) for text in request.POST.getlist(ACTION_CHECKBOX_NAME)):
            self.message_user(request, _("Nothing was changed: no such rows."), messages.WARNING)
            return None
        return super().response_action(request, queryset, *more)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """What a confirmation lists. Django's own would read every row that refers to these."""
        shown = [str(one) for one in objs]
        return shown, {self.opts.verbose_name_plural: len(shown)}, set(), []


class ReadOnly(Scoped):
    """A page to look at only."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class TenantFilter(admin.SimpleListFilter):
    """For whoever sees several tenants; with many of them he searches instead."""

    title = _lazy("tenant")
    parameter_name = "tenant__id__exact"
    _MOST = 100

    def has_output(self) -> bool:
        return bool(self.value() or self.lookup_choices)

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        if not sees_tenants(request):
            return []
        seen = Tenant.objects.visible_to(request.user).values_list("pk", "slug")[: self._MOST + 1]
        tenants = [(str(pk), slug) for pk, slug in seen]
        return tenants if len(tenants) <= self._MOST else []

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if value and value.isdecimal() and len(value) < 19:
            return queryset.filter(tenant=int(value))
        return queryset


class SinceFilter(admin.SimpleListFilter):
    """For rows of a time: the latest. `column` says where the time stands."""

    title = _lazy("since")
    parameter_name = "since"
    column: ClassVar[str] = "last_at"
    SPANS: Final = {
        "day": (_lazy("In 24 hours"), timedelta(days=1)),
        "week": (_lazy("In 7 days"), timedelta(days=7)),
        "month": (_lazy("In 30 days"), timedelta(days=30)),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(name, title) for name, (title, _span) in self.SPANS.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        span = self.SPANS.get(self.value() or "")
        return queryset.filter(**{f"{self.column}__gte": Now() - span[1]}) if span else queryset


def _visible(model: Any, request: HttpRequest) -> QuerySet[Any]:
    objects = model._default_manager
    if hasattr(objects, "visible_to"):
        found: QuerySet[Any] = objects.visible_to(request.user)
        return found
    return objects.all() if is_operator(request) else objects.none()  # type: ignore[no-any-return]


def _is_key(text: str, model: Any) -> bool:
    key = model._meta.pk
    try:
        key.run_validators(key.to_python(text))
    except ValidationError:
        return False
    return True


def may(request: HttpRequest, resource: str, verb: str) -> bool:
    """Whether whoever looks may do that here. The owner of a mailbox may do nothing."""
    principal = principals.of(request.user)
    if principal is None or principal.role == Role.MEMBER or verb not in permissions.TABLE[resource]:
        return False
    return permissions.may(principal, resource, verb)


def is_operator(request: HttpRequest) -> bool:
    """Whether whoever looks belongs to no tenant and sees all of them."""
    return request.user.is_active and request.user.is_superuser


def sees_tenants(request: HttpRequest) -> bool:
    """Whether whoever looks may see more tenants than one."""
    principal = principals.of(request.user)
    return principal is not None and principal.tenant_id is None


def dress(form: forms.BaseForm) -> None:
    """Give a form's fields the looks of the admin, as those have that Django makes from models."""
    for field in form.fields.values():
        widget = field.widget
        for kind, classes in _CLASSES:
            if isinstance(widget, kind):
                widget.attrs.setdefault("class", " ".join(classes))
                break


_CLASSES: Final[tuple[tuple[type[forms.Widget], list[str]], ...]] = (
    (forms.CheckboxSelectMultiple, []),
    (forms.CheckboxInput, widgets.SWITCH_CLASSES),
    (forms.Textarea, [*widgets.TEXTAREA_CLASSES, "field-sizing-content"]),
    (forms.SelectMultiple, widgets.BASE_INPUT_CLASSES),
    (forms.Select, widgets.SELECT_CLASSES),
    (forms.FileInput, widgets.BASE_INPUT_CLASSES),
    (forms.HiddenInput, []),
    (forms.widgets.Input, widgets.INPUT_CLASSES),
)


def links(key: Any, *pages: tuple[Any, str, str]) -> str:
    """Links to lists, each a title, the name of a URL, and the parameter by which it is narrowed to this key."""
    return format_html_join(
        " · ",
        '<a class="text-primary-600 dark:text-primary-500" href="{}?{}">{}</a>',
        ((reverse(name), urlencode({parameter: key}), title) for title, name, parameter in pages),
    )
