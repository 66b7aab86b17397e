"""What the pages share whose forms write: through `accounts.provisioning`, which alone says who has mail."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected
from django.contrib.admin.utils import unquote
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts import addresses, languages, limits, principals, provisioning, quotas, together
from accounts.models import Domain, Reseller, Tenant
from accounts.principals import Principal
from accounts.provisioning import REFUSALS, UnknownDomain
from accounts.scoped import Scoped, dress


class ProvisioningForm(forms.ModelForm):  # type: ignore[type-arg] # Django's is not generic when it runs
    """A form that is checked by doing what it asks for.

    So a check has one home, and what is refused stands in the form. The page is one transaction: if anything is
    wrong after this, nothing was done.
    """

    request: HttpRequest  # set by `Provisioned.get_form`
    page: "Provisioned"  # so, too
    fields_for: ClassVar[dict[str, tuple[str, ...]]] = {}
    """By verb of the table, the fields that are only there for who may do that."""

    shown_once: tuple[str, str] | None = None
    """A secret that was made: what it is, and its text."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for verb, names in self.fields_for.items():
            if not self.page.may(self.request, verb):
                for name in names:
                    self.fields.pop(name, None)
        dress(self)

    @property
    def principal(self) -> Principal:
        """Who fills it in."""
        return cast("Principal", principals.of(self.request.user))

    def write(self) -> Any:
        """Do it, and return what was written. Raises any of `REFUSALS`."""
        raise NotImplementedError

    def given(self, *names: str) -> dict[str, Any]:
        """Those of these fields that are there."""
        return {name: self.cleaned_data[name] for name in names if name in self.fields}

    def _post_clean(self) -> None:
        if self.errors:
            return
        try:
            with transaction.atomic():
                self.instance = self.write()
        except REFUSALS as refusal:
            field = getattr(refusal, "field", "")
            self.add_error(field if field in self.fields else None, f"{refusal}.")


class Provisioned(Scoped):
    """A page whose forms write, and whose rows end by `end`."""

    form = ProvisioningForm
    add_form: ClassVar[type[ProvisioningForm]]
    ending: ClassVar[tuple[Any, Any]] = (_("Remove"), _("Removed"))
    """What the end of a row is called: to be done, and done."""
    ended: ClassVar[str] = ""
    """The column that says since when a row has ended, where it stays in the list. It does not end again."""
    meaning: ClassVar[Any] = ""
    """What it means."""
    delete_confirmation_template = "admin/accounts/end_confirmation.html"
    delete_selected_confirmation_template = "admin/accounts/end_selected_confirmation.html"

    def end(self, row: Any) -> bool | None:
        """End a row's use; False if it had ended. Raises any of `REFUSALS`."""
        raise NotImplementedError

    def facts(self, rows: QuerySet[Any]) -> together.Facts:
        """What goes with these rows, in numbers: told before they are ended."""
        return ()

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        has_ended = obj is not None and self.ended and getattr(obj, self.ended) is not None
        return super().has_delete_permission(request, obj) and not has_ended

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is None:
            kwargs["form"] = self.add_form
        form: Any = super().get_form(request, obj, change, **kwargs)
        form.request = request
        form.page = self
        return form

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """The form has written it."""
        if form.shown_once:
            request.shown_once = form.shown_once  # type: ignore[attr-defined] # for `response_add`

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """And what belongs to it."""

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        """Where something secret was made, a page that shows it: it is not kept for another one."""
        secret = getattr(request, "shown_once", None)
        if secret is None:
            return super().response_add(request, obj, post_url_continue)
        return self.once(request, obj, *secret)

    def once(self, request: HttpRequest, obj: Any, what: str, text: str) -> HttpResponse:
        """A page that shows a secret, this once."""
        context = {**self.admin_site.each_context(request), "opts": self.opts, "title": what, "object": obj}
        response = TemplateResponse(request, "admin/accounts/shown_once.html", {**context, "text": text})
        response["Cache-Control"] = "no-store"
        return response

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        context["ending"] = self.ending[0]
        return super().render_change_form(request, context, *args, **kwargs)

    def get_actions(self, request: HttpRequest) -> Any:
        found = super().get_actions(request)
        if "delete_selected" in found:
            found["delete_selected"] = (
                Provisioned._end_selected,
                "delete_selected",
                gettext("%(end)s these") % {"end": self.ending[0]},
            )  # type: ignore[assignment] # it may answer
        return found

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        row = self.get_object(request, unquote(object_id)) if request.method == "GET" else None
        facts = self.facts(self.model._default_manager.filter(pk=row.pk)) if row is not None else ()
        words = {"ending": self.ending[0], "meaning": self.meaning, "facts": facts}
        try:
            return super().delete_view(request, object_id, (extra_context or {}) | words)
        except REFUSALS as refusal:
            self.message_user(request, f"{refusal}.", messages.ERROR)
            return self.to_list()

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        self.end(obj)

    def response_delete(self, request: HttpRequest, obj_display: str, obj_id: int) -> HttpResponse:
        self.message_user(request, f"{self.ending[1]}: {obj_display}.", messages.SUCCESS)
        return self.to_list()

    def _end_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        going = queryset.filter(**{self.ended: None}) if self.ended else queryset
        if not request.POST.get("post") and going.exists():
            answer = delete_selected(self, request, going)  # asks
            if isinstance(answer, TemplateResponse):
                left = together.left(self.ending[1], queryset.exclude(pk__in=going.values("pk")))
                words = {"ending": self.ending[0], "meaning": self.meaning, "facts": [*self.facts(going), *left]}
                answer.context_data = (answer.context_data or {}) | words
            return answer
        self.each(request, queryset, self.end, self.ending[1].lower())
        return None

    def each(self, request: HttpRequest, queryset: QuerySet[Any], change: Callable[[Any], Any], said: str) -> None:
        """Do something to each of these; those to which it cannot be done are told.

        `change` returns False where a row was so already: such rows are counted, and not in the history.
        """
        done = same = 0
        for row in queryset:
            try:
                with transaction.atomic():
                    is_new = change(row) is not False
            except REFUSALS as refusal:
                self.message_user(
                    request,
                    gettext("Left as it was, %(row)s: %(refusal)s.") % {"row": row, "refusal": refusal},
                    messages.WARNING,
                )
                continue
            if is_new:
                self.log_change(request, row, f"{said.capitalize()}.")
            done += is_new
            same += not is_new
        text = gettext("Now %(said)s: %(done)s.") % {"said": said, "done": languages.number(done)}
        if same:
            text += " " + gettext("So already: %(same)s.") % {"same": languages.number(same)}
        self.message_user(request, text, messages.SUCCESS)


class QuotaField(forms.Field):
    """Octets as people write them; empty is no limit."""

    widget = forms.TextInput

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"required": False, "help_text": _("Such as 500M or 1G. Empty: no limit."), **options})

    def prepare_value(self, value: Any) -> Any:
        return quotas.exact(value) if isinstance(value, int) else value

    def to_python(self, value: Any) -> int | None:
        try:
            return quotas.parse(value) if value else None
        except ValueError as error:
            raise ValidationError(f"{error}.") from None


class DaysField(forms.Field):
    """A time in whole days; empty is none."""

    widget = forms.NumberInput

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"required": False, **options})

    def prepare_value(self, value: Any) -> Any:
        return value.days if isinstance(value, timedelta) else value

    def to_python(self, value: Any) -> timedelta | None:
        try:
            return timedelta(days=int(value)) if value else None
        except (ValueError, OverflowError):
            raise ValidationError(gettext("Say a number of days.")) from None


class WordsField(forms.CharField):
    """Words separated by blanks or commas, as a list."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"required": False, **options})

    def prepare_value(self, value: Any) -> Any:
        return " ".join(value) if isinstance(value, list) else value

    def clean(self, value: Any) -> list[str]:
        return str(super().clean(value)).replace(",", " ").split()


def password_field(help_text: Any) -> forms.CharField:
    return forms.CharField(
        label=_("Password"),
        required=False,
        strip=False,
        help_text=help_text,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )


def visible_domains(names: list[str], request: HttpRequest) -> list[Domain]:
    """The domains of these names. Raises `UnknownDomain` where one does not exist for whoever asks."""
    return [visible_domain(f"@{addresses.domain(name)}", request) for name in names]


def visible_domain(address: str, request: HttpRequest) -> Domain:
    """The domain of an address. Raises `UnknownDomain` where it does not exist for whoever asks."""
    host = addresses.split(address)[1]
    domain: Domain | None = Domain.objects.visible_to(request.user).filter(name=host).first()
    if domain is None:
        raise UnknownDomain(gettext("%(host)s is not hosted here") % {"host": host})
    return domain


class Limited(ProvisioningForm):
    """A form of what has limits."""

    max_domains = forms.IntegerField(
        label=_("Max domains"), required=False, min_value=0, help_text=_("Empty: no limit.")
    )
    max_mailboxes = forms.IntegerField(
        label=_("Max mailboxes"), required=False, min_value=0, help_text=_("Empty: no limit.")
    )
    max_aliases = forms.IntegerField(
        label=_("Max aliases"), required=False, min_value=0, help_text=_("Empty: no limit.")
    )
    max_octets = QuotaField(label=_("Max octets"), help_text=_("Of all its mail together: 500M, 1G. Empty: no limit."))
    fields_for: ClassVar = {"limits": (*limits.FIELDS, "plan")}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if target := kwargs.get("instance"):
            now = limits.of(target)
            kwargs["initial"] = {name: getattr(now, name) for name in limits.FIELDS} | (kwargs.get("initial") or {})
        super().__init__(*args, **kwargs)

    def limit(self, target: Reseller | Tenant | Domain) -> None:
        """Give it the limits that were filled in."""
        try:
            if wanted := self.given(*limits.FIELDS):
                limits.set_limits(target, **wanted)
        except ValueError as error:
            raise provisioning.BadValue(str(error)) from None


class LimitedPage(Provisioned):
    """A page of what has limits: they are shown with what there is, and set by whoever may."""

    limited: ClassVar[tuple[str, ...]] = limits.FIELDS

    def limit_fields(self, request: HttpRequest) -> tuple[str, ...]:
        """The limits, for whoever may set them."""
        return self.limited if self.may(request, "limits") else ()

    @admin.display(description=_("has, of what it may have"))
    def has(self, target: Any) -> str:
        allowance = limits.of(target)
        found = []
        for what in ("domains", "mailboxes", "aliases"):
            if f"max_{what}" in self.limited:
                has, most = getattr(allowance, what), getattr(allowance, f"max_{what}")
                found.append(
                    limits.told(limits.so_many(what, has), None)
                    if most is None
                    else limits.told(languages.number(has), limits.so_many(what, most))
                )
        used, room = quotas.rounded(limits.used_octets(target)), allowance.max_octets
        found.append(
            limits.told(_octets(used), None) if room is None else limits.told(used, _octets(quotas.exact(room)))
        )
        return "; ".join(found)


def _octets(size: str) -> str:
    return gettext("%(size)s octets") % {"size": size}


class Revocable(Provisioned):
    """A page of what somebody signs in with, until it is revoked."""

    ending = (_("Revoke"), _("Revoked"))
    ended = "revoked_at"
    meaning = _("Nothing can sign in with it any more.")


def is_host_wide(request: HttpRequest) -> bool:
    principal = principals.of(request.user)
    return principal is not None and principal.is_host_wide
