"""What is another tenant's does not exist in the admin, at no address and in whatever way it is asked for.

All addresses are read off the site: a new page is tested by being there.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final
from urllib.parse import quote, quote_plus

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import FieldDoesNotExist
from django.db import connection, models, transaction
from django.db.models import Model
from django.forms import FileField, ModelChoiceField
from django.test import Client, RequestFactory
from django.urls import reverse

from accounts.models import Mailbox, Reseller, Role, Tenant, User
from tests.accounts.admin_places import PLACES, Place, of_kind
from tests.accounts.test_admin import MODELS, Rows, rows, somebody
from tests.fixtures import Customer

__all__ = ["rows", "somebody"]  # fixtures

ROLES: Final = [Role.RESELLER, Role.TENANT_ADMIN, Role.DOMAIN_ADMIN, Role.SUPPORT]
"""Those for whom something is another's."""

YES: Final = {"post": "yes", "apply": "yes", "asked": "yes", "sure": "yes", "index": "0"}
"""How whatever is asked before something is done is answered."""

each_role = pytest.mark.parametrize("role", ROLES)
# What is found is asked of `visible_to` alone: enough to ask who sees most of what is not all, and who sees least.
widest_and_narrowest = pytest.mark.parametrize("role", [Role.RESELLER, Role.DOMAIN_ADMIN])


@pytest.fixture(autouse=True)
def keys_that_stand_out(db: None) -> None:
    """Keys that are no other numbers of a page, and differ from table to table."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT c.oid::regclass::text FROM pg_class c WHERE relkind = 'S' ORDER BY 1")
        for number, (name,) in enumerate(cursor.fetchall()):
            cursor.execute("SELECT setval(%s, %s)", [name, 500_000 + 1000 * number])


@pytest.fixture
def untouched(rows: Rows, globex: Customer) -> Callable[[], set[str]]:
    """Tells in which tables something of the foreign tenant has changed since the test began."""
    whole = "md5(string_agg(t::text, '|' ORDER BY t::text))"
    parts = [
        f"SELECT '{model._meta.db_table}', {whole} FROM {model._meta.db_table} t WHERE tenant_id = {globex.tenant.pk}"
        for model in apps.get_models()
        if any(field.column == "tenant_id" for field in model._meta.concrete_fields)
    ]
    parts += [
        f"SELECT '{model._meta.db_table}', {whole} FROM {model._meta.db_table} t WHERE id = {rows[model]['globex'].pk}"
        for model in (Tenant, Reseller)
    ]

    def everything() -> set[tuple[str, str]]:
        with connection.cursor() as cursor:
            cursor.execute(" UNION ALL ".join(parts))
            return set(cursor.fetchall())

    before = everything()
    return lambda: {table for table, _all in before ^ everything()}


@contextmanager
def undone() -> Iterator[None]:
    """Whatever is done within is not done."""
    with suppress(_Undone), transaction.atomic():
        yield
        raise _Undone


class _Undone(Exception):
    pass


def never(row: Model) -> Any:
    """A key that no such row has."""
    return 999_999 if isinstance(row.pk, int) else "00000000-0000-0000-0000-000000000000"


def text_of(answer: Any) -> str:
    """The whole answer."""
    content = b"".join(answer.streaming_content) if answer.streaming else answer.content
    return str(content.decode(errors="replace"))


def told(answer: Any, *names: Any) -> tuple[int, str, str]:
    """An answer without the names that were asked for, and without what is new in each."""
    text, where = text_of(answer), answer.get("Location", "")
    for text_ in [part for name in names for part in (str(name), str(name).partition("@")[2]) if part]:
        for form in {text_, quote(text_), quote_plus(text_), quote_plus(quote_plus(text_))}:
            text, where = text.replace(form, "NAME"), where.replace(form, "NAME")
    text = re.sub(r'(name="csrfmiddlewaretoken" value|"?X-CSRFToken"?:? )"?[="]+\w+"', "TOKEN", text)
    text = re.sub(r"&quot;X-CSRFToken&quot;: &quot;\w+&quot;", "TOKEN", text)
    return answer.status_code, where, text


def differs(client: Client, foreign: Any, missing: Any, ask: Callable[[Any], Any]) -> list[str]:
    """Whether what is another's is answered otherwise than what there is not, or told of."""
    answers = []
    for key in (foreign, missing):
        client.cookies.pop("messages", None)  # what is still to be said of what went before
        with undone():
            answers.append(told(ask(key), key))
    theirs, none = answers
    wrong = []
    if theirs != none:
        wrong.append(f"answered {theirs[:2]}, and what there is not {none[:2]}{_where_they_part(theirs[2], none[2])}")
    if "globex" in theirs[2]:
        wrong.append(f"names it: {_around(theirs[2], 'globex')}")
    return wrong


def _where_they_part(one: str, other: str) -> str:
    for first, second in zip(one.splitlines(), other.splitlines(), strict=False):
        if first != second:
            return f": {first.strip()[:200]!r} and {second.strip()[:200]!r}"
    return ""


def _around(text: str, word: str) -> str:
    place = text.find(word)
    return text[max(0, place - 150) : place + 150].replace("\n", " ")


# --- Addresses -----------------------------------------------------------------------------------------------------


@each_role
def test_pages_about_what_is_anothers_are_as_those_about_what_is_not_there(
    role: str, rows: Rows, somebody: Client, untouched: Callable[[], set[str]]
) -> None:
    wrong = []
    for place in of_kind("change", "delete", "history", "row", "old"):
        assert place.model
        theirs = rows[place.model]["globex"]
        for way, send in (("GET", somebody.get), ("POST", somebody.post)):
            values: dict[str, str] = YES if way == "POST" else {"asked": "1"}

            def ask(key: Any, place: Place = place, send: Any = send, values: Any = values) -> Any:
                return send(place.path(_with_key(place.model, key)), values)

            said = differs(somebody, theirs.pk, never(theirs), ask)
            wrong += [f"{way} {place.pattern}: {one}" for one in said]
            with undone():
                answer = send(place.path(theirs), values, follow=True)
                if "globex" in text_of(answer):
                    wrong.append(f"{way} {place.pattern}, followed: {_around(text_of(answer), 'globex')}")
    assert not wrong, "\n".join(wrong)
    assert not untouched()


def _with_key(model: Any, key: Any) -> Model:
    row: Model = model(pk=key)
    return row


@each_role
def test_no_page_about_ones_own_or_about_all_tells_of_anothers(role: str, rows: Rows, somebody: Client) -> None:
    wrong = []
    for place in PLACES:
        paths: Iterable[str] = ()
        if place.kind in ("list", "add", "plain"):
            paths = [place.path()]
        elif place.kind in ("change", "delete", "history", "row") and place.model:
            paths = [place.path(rows[place.model]["acme"])]
        elif place.name == "app_list":
            paths = [f"/admin/{app.label}/" for app in apps.get_app_configs()]
        for path in paths:
            with undone():
                answer = somebody.get(path, {"asked": "1"} if place.kind == "row" else {}, follow=True)
            if answer.status_code not in (200, 403, 404):
                wrong.append(f"{path}: {answer.status_code}")
            if "globex" in text_of(answer):
                wrong.append(f"{path}: {_around(text_of(answer), 'globex')}")
    assert not wrong, "\n".join(wrong)


@each_role
def test_nobody_is_sent_on_to_what_is_anothers(role: str, rows: Rows, somebody: Client) -> None:
    for model in MODELS:
        kind = ContentType.objects.get_for_model(model).pk
        for row in rows[model].values():
            assert somebody.get(f"/admin/r/{kind}/{row.pk}/").status_code == 404


# --- Lists ---------------------------------------------------------------------------------------------------------


NAMES: Final = ["an@globex.test", "globex", "@globex.test", "seller-of-globex", "about globex"]
"""What a search may know of the foreign tenant."""


@widest_and_narrowest
def test_no_search_finds_what_is_anothers(role: str, rows: Rows, somebody: Client) -> None:
    wrong = []
    for place in of_kind("list"):
        if somebody.get(place.path()).status_code == 403:
            continue
        for text in NAMES:

            def ask(name: str, place: Place = place) -> Any:
                return somebody.get(place.path(), {"q": name})

            missing = text.replace("globex", "glnone")
            wrong += [f"{place.pattern}?q={text}: {one}" for one in differs(somebody, text, missing, ask)]
    [search] = [place for place in PLACES if place.name == "search"]
    for text in NAMES:
        shown = text_of(somebody.get(search.path(), {"s": text, "extended": "1"})).replace(text, "")
        assert "globex" not in shown
    assert not wrong, "\n".join(wrong)


@widest_and_narrowest
def test_no_question_is_answered_with_what_is_anothers(role: str, rows: Rows, somebody: Client) -> None:
    """Pages that are asked something in their address."""
    wrong = []
    for place in of_kind("plain"):
        answer = somebody.get(place.path())
        if answer.status_code != 200 or answer.streaming:
            continue
        fields = re.findall(r"<(?:input|select|textarea)\b[^>]*\bname=\"(\w+)\"", text_of(answer))
        for name in set(fields) - {"csrfmiddlewaretoken", "s"}:
            for text in NAMES:

                def ask(key: Any, place: Place = place, name: str = name) -> Any:
                    return somebody.get(place.path(), {name: key})

                missing = text.replace("globex", "glnone")
                wrong += [f"{place.pattern}?{name}={text}: {one}" for one in differs(somebody, text, missing, ask)]
    assert not wrong, "\n".join(wrong)


@widest_and_narrowest
def test_no_filter_finds_what_is_anothers(role: str, rows: Rows, somebody: Client) -> None:
    wrong = []
    for place in of_kind("list"):
        assert place.model
        answer = somebody.get(place.path())
        if answer.status_code != 200:
            continue
        page: Any = admin.site._registry[place.model]
        linked = set(re.findall(r'href="\?([^"#]*)"', text_of(answer)))
        for query in linked:
            shown = somebody.get(f"{place.path()}?{query.replace('&amp;', '&')}")
            assert shown.status_code in (200, 302), query
            if "globex" in text_of(shown):
                wrong.append(f"{place.pattern}?{query}: {_around(text_of(shown), 'globex')}")
        names = {query.partition("=")[0] for query in linked} | set(page.narrowed_by) | {"tenant__id__exact"}
        for name in names - {"o", "p", "all", "e"}:
            for theirs in (rows[model]["globex"] for model in (_named_by(place.model, name), Tenant)):

                def ask(key: Any, place: Place = place, name: str = name) -> Any:
                    return somebody.get(place.path(), {name: key})

                said = differs(somebody, theirs.pk, never(theirs), ask)
                wrong += [f"{place.pattern}?{name}={theirs!r}: {one}" for one in said]
        for more in ("_popup=1", "_to_field=id", "o=1", "o=-1.2", "p=2", "all="):
            if "globex" in text_of(somebody.get(f"{place.path()}?{more}")):
                wrong.append(f"{place.pattern}?{more}")
    assert not wrong, "\n".join(wrong)


def _named_by(model: type[Model], parameter: str) -> Any:
    """The model whose key a filter takes."""
    with suppress(FieldDoesNotExist):
        return model._meta.get_field(parameter.partition("__")[0]).related_model or Mailbox
    return Mailbox


@widest_and_narrowest
def test_no_choice_is_anothers(role: str, rows: Rows, somebody: Client) -> None:
    path = reverse("admin:autocomplete")
    wrong = []
    for model in MODELS:
        for field in model._meta.get_fields():
            if not isinstance(field, models.ForeignKey | models.ManyToManyField):
                continue
            where: dict[str, Any] = {"app_label": model._meta.app_label, "model_name": model._meta.model_name}
            where["field_name"] = field.name
            for term in ("", *NAMES):
                answer = somebody.get(path, {**where, "term": term})
                if answer.status_code != 403 and "globex" in text_of(answer):
                    wrong.append(f"{where} {term!r}: {_around(text_of(answer), 'globex')}")
    assert not wrong, "\n".join(wrong)


# --- Writing -------------------------------------------------------------------------------------------------------


def actions_of(page: Any) -> list[str]:
    """All actions of a list, for whoever may use them."""
    request = RequestFactory().get("/")
    request.user = User(role="operator", is_superuser=True, is_staff=True, is_active=True)
    return [name for _function, name, _text in page._get_base_actions()] + list(page.get_actions(request))


@each_role
def test_no_action_reaches_what_is_anothers(
    role: str, rows: Rows, somebody: Client, untouched: Callable[[], set[str]]
) -> None:
    wrong = []
    for place in of_kind("list"):
        assert place.model
        theirs = rows[place.model]["globex"]
        for action in sorted(set(actions_of(admin.site._registry[place.model]))):
            given = {"action": action, "reason": "x", "quota": "1M", "quota_octets": "1M", **YES}
            for across in ("0", "1"):

                def ask(key: Any, place: Place = place, given: dict[str, str] = given, across: str = across) -> Any:
                    values = {**given, "_selected_action": key, "select_across": across}
                    return somebody.post(place.path(), values)

                if across == "0":
                    said = differs(somebody, theirs.pk, never(theirs), ask)
                    wrong += [f"{place.pattern} {action}: {one}" for one in said]
                else:
                    with undone():
                        shown = text_of(ask(theirs.pk))
                        changed = untouched()
                    if "globex" in shown or changed:
                        wrong.append(f"{place.pattern} {action}, of all: {changed}")
            with undone():
                somebody.post(place.path(), {**given, "_selected_action": theirs.pk})
                wrong += [f"{place.pattern} {action}: {change}" for change in untouched()]
    assert not wrong, "\n".join(wrong)


def model_of(field: Any) -> Any:
    """The model of whose rows one is chosen."""
    return field.queryset.model


def filled_in(form: Any, rows: Rows) -> dict[str, Any]:
    """Values for a form, such as somebody may send who looks after acme."""
    plausible = {
        "address": "new@acme.test", "new_address": "new2@acme.test", "targets": "an@acme.test", "domains": "acme.test",
        "email": "new@acme.example", "slug": "new", "external_id": "x-1", "url": "https://hooks.example/",
        "host": "203.0.113.9", "scopes": "mailboxes:read", "state": "active", "role": "tenant-admin",
    }  # fmt: skip
    values: dict[str, Any] = {}
    for name, field in form.fields.items():
        if isinstance(field, ModelChoiceField):
            own = rows.get(model_of(field), {}).get("acme")
            values[name] = own.pk if own else ""
        elif isinstance(field, FileField):
            continue
        elif name in plausible:
            values[name] = plausible[name]
        elif getattr(field, "choices", None):
            values[name] = next((key for key, _text in field.choices if key), "")
        elif field.required:
            values[name] = "new"
    return values


@each_role
def test_no_form_takes_what_is_anothers(
    role: str, rows: Rows, somebody: Client, untouched: Callable[[], set[str]]
) -> None:
    wrong, filled = [], 0
    for place in of_kind("add", "change", "row", "plain"):
        own = rows[place.model]["acme"] if place.model and place.kind != "plain" and place.kind != "add" else None
        path = place.path(own)
        with undone():
            answer = somebody.get(path)
        form = _form(answer)
        if answer.status_code != 200 or form is None:
            continue
        filled += 1
        values = filled_in(form, rows)
        for name, field in form.fields.items():
            if isinstance(field, ModelChoiceField):
                theirs = rows[model_of(field)]["globex"]

                def ask(key: Any, path: str = path, name: str = name, values: dict[str, Any] = values) -> Any:
                    return somebody.post(path, {**values, **YES, name: key})

                said = differs(somebody, theirs.pk, never(theirs), ask)
                wrong += [f"{place.pattern} {name}: {one}" for one in said]
            elif not isinstance(field, FileField) and not getattr(field, "choices", None):
                for text in ("an@globex.test", "globex.test", "globex"):
                    with undone():
                        somebody.post(path, {**values, **YES, name: text})
                        changed = untouched()
                    if changed:
                        wrong.append(f"{place.pattern} {name}={text}: {changed}")
            with undone():
                if isinstance(field, ModelChoiceField):
                    somebody.post(path, {**values, **YES, name: rows[model_of(field)]["globex"].pk})
                wrong += [f"{place.pattern} {name}: {change}" for change in untouched()]
    assert filled > (3 if role == Role.SUPPORT else 8)
    assert not wrong, "\n".join(wrong)


def _form(answer: Any) -> Any:
    context: Any = getattr(answer, "context", None)
    for name in ("adminform", "form"):
        with suppress(KeyError, TypeError):
            found = context[name]
            if found is not None:
                return getattr(found, "form", found)
    return None


@widest_and_narrowest
def test_what_a_form_asks_for_in_its_address_is_not_anothers(role: str, rows: Rows, somebody: Client) -> None:
    """An address may fill a form in: with a row's key, whose name would then be shown."""
    wrong = []
    for place in of_kind("add", "plain"):
        form = _form(somebody.get(place.path()))
        for name, field in form.fields.items() if form is not None else ():
            theirs = rows[model_of(field) if isinstance(field, ModelChoiceField) else Mailbox]["globex"]
            answer = somebody.get(place.path(), {name: theirs.pk})
            if answer.status_code >= 500 or "globex" in text_of(answer):
                wrong.append(f"{place.pattern}?{name}={theirs!r}: {_around(text_of(answer), 'globex')}")
    assert not wrong, "\n".join(wrong)
