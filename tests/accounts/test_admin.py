import re
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib import admin
from django.contrib.auth import authenticate
from django.contrib.auth.models import Group
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accounts import provisioning
from accounts.models import Alias, Domain, Mailbox, Tenant, User
from accounts.scoped import Bounded
from mailstore.models import Listener, MaildropSession, Message
from tests.fixtures import PASSWORD, Customer
from tests.mailstore.rows import add_listener, add_message, add_session

MODELS: list[type[Model]] = [Tenant, Domain, User, Mailbox, Alias, MaildropSession, Listener, Message]


def url(model: type[Model], view: str, *arguments: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{view}", args=arguments)


def page(client: Client, path: str, **query: Any) -> str:
    response = client.get(path, query)
    assert response.status_code == 200, (path, response.status_code)
    return response.content.decode()


def said(client: Client, path: str, values: dict[str, Any], status: int = 200) -> str:
    """What the page says after a form was sent; following a redirect that comes with success."""
    response = client.post(path, values, follow=True)
    assert response.status_code == status
    return response.content.decode()


def act(client: Client, model: type[Model], action: str, *rows: Model, **more: Any) -> str:
    values = {"action": action, "_selected_action": [str(row.pk) for row in rows], **more}
    return said(client, url(model, "changelist"), values)


@pytest.fixture
def rows(acme: Customer, globex: Customer) -> dict[type[Model], dict[str, Model]]:
    """One row of each model for each tenant."""
    found: dict[type[Model], dict[str, Model]] = {model: {} for model in MODELS}
    for customer in (acme, globex):
        slug = customer.tenant.slug
        listener = add_listener("pop3", host=f"host-of-{slug}")
        session = add_session(customer.mailbox, listener)
        alias, _ = provisioning.add_alias(f"sales@{customer.domain}", mailbox=customer.mailbox)
        message = add_message(customer.mailbox, subject=f"About {slug}", sender=f"someone@{slug}.example")
        found[Tenant][slug] = customer.tenant
        found[Domain][slug] = customer.domain
        found[User][slug] = customer.mailbox.user
        found[Mailbox][slug] = customer.mailbox
        found[Alias][slug] = alias
        found[MaildropSession][slug] = session
        found[Listener][slug] = listener
        found[Message][slug] = message
    return found


Rows = dict[type[Model], dict[str, Model]]


# --- Who sees what -------------------------------------------------------------------------------------------------


def test_all_models_are_there(rows: Rows, operator: Client) -> None:
    index = page(operator, reverse("admin:index"))
    registered = {model for model in admin.site._registry if model._meta.app_label in ("accounts", "mailstore")}
    assert registered == set(MODELS)
    for model in MODELS:
        assert url(model, "changelist") in index


@pytest.mark.parametrize("model", MODELS)
def test_an_operator_sees_every_row_of_every_tenant(model: type[Model], rows: Rows, operator: Client) -> None:
    listed = page(operator, url(model, "changelist"))
    for row in rows[model].values():
        assert url(model, "change", row.pk) in listed
        page(operator, url(model, "change", row.pk))
        page(operator, url(model, "history", row.pk))


@pytest.mark.parametrize("model", MODELS)
def test_what_belongs_to_another_tenant_does_not_exist(model: type[Model], rows: Rows, boss: Client) -> None:
    theirs = rows[model]["globex"]
    if model is not Listener:
        ours = rows[model]["acme"]
        listed = page(boss, url(model, "changelist"))
        assert url(model, "change", ours.pk) in listed
        assert "globex" not in listed
        assert "globex" not in page(boss, url(model, "change", ours.pk))
        assert "globex" not in page(boss, url(model, "history", ours.pk))
    nowhere = 999_999 if model is not MaildropSession else "00000000-0000-0000-0000-000000000000"
    for view in ("change", "history", "delete"):
        for method in (boss.get, boss.post):
            answer, to_nowhere = (method(url(model, view, pk)) for pk in (theirs.pk, nowhere))
            assert answer.status_code == to_nowhere.status_code
            assert answer.status_code in (302, 403, 404)
            assert "globex" not in answer.content.decode()
    assert boss.get(f"/admin/r/{ContentType.objects.get_for_model(model).pk}/{theirs.pk}/").status_code == 404


@pytest.mark.parametrize("model", MODELS)
def test_a_tenant_s_staff_without_permission_sees_nothing(model: type[Model], rows: Rows, acme: Customer) -> None:
    helper = Client()
    helper.force_login(provisioning.add_staff("helper@acme.test", password=None, tenant=acme.tenant))
    assert helper.get(url(model, "changelist")).status_code == 403
    assert helper.get(url(model, "change", rows[model]["acme"].pk)).status_code == 403


def test_the_owner_of_a_mailbox_is_asked_to_sign_in_as_somebody_else(acme: Customer) -> None:
    owner = Client()
    owner.force_login(acme.mailbox.user)
    assert owner.get(url(Mailbox, "changelist")).status_code == 302


def test_staff_does_not_see_the_machinery_and_cannot_give_itself_rights(
    rows: Rows, boss: Client, acme: Customer
) -> None:
    index = page(boss, reverse("admin:index"))
    assert url(Listener, "changelist") not in index
    assert url(Group, "changelist") not in index
    assert boss.get(url(Listener, "changelist")).status_code == 403
    assert boss.get(url(Group, "changelist")).status_code == 403
    for model in (Tenant, Domain, User):
        assert boss.get(url(model, "add")).status_code == 403
    me = User.objects.get(email="boss@acme.test")
    for user in (me, acme.mailbox.user):
        assert boss.post(url(User, "change", user.pk), {"is_superuser": "on", "is_staff": "on"}).status_code == 403
    session = rows[MaildropSession]["acme"]
    assert "host-of" not in page(boss, url(MaildropSession, "change", session.pk))


@pytest.mark.parametrize(("model", "field"), [(Tenant, "admin_mailbox"), (Domain, "tenant"), (User, "tenant")])
def test_choices_are_those_that_exist_for_whoever_chooses(
    model: type[Model], field: str, rows: Rows, boss: Client, operator: Client
) -> None:
    query: dict[str, Any] = {
        "app_label": model._meta.app_label,
        "model_name": model._meta.model_name,
        "field_name": field,
    }
    path = reverse("admin:autocomplete")
    everything = operator.get(path, query | {"term": ""}).json()["results"]
    assert len(everything) == 2
    assert [one["text"] for one in operator.get(path, query | {"term": "globex"}).json()["results"]] == (
        ["globex"] if field == "tenant" else []
    )
    assert operator.get(path, query | {"term": "\0"}).json()["results"] == []
    assert "globex" not in boss.get(path, query | {"term": ""}).content.decode()


# --- Bad input -----------------------------------------------------------------------------------------------------

NONSENSE = ["", "x", "\0", "-1", "9" * 40, "\udcff"]
QUESTIONS = {"q", "p", "o", "all", "_to_field", "_popup", "id__in", "address__regex", "user__password__startswith"}


def encoded(values: dict[str, str]) -> str:
    """As a browser would send it, or somebody who is not a browser."""
    return "&".join(
        f"{name}={quote(value.encode(errors='surrogateescape'), safe='')}" for name, value in values.items()
    )


def send(client: Client, path: str, values: dict[str, str]) -> int:
    form = "application/x-www-form-urlencoded"
    return client.post(path, encoded(values), content_type=form).status_code


@pytest.mark.parametrize("model", MODELS)
def test_no_question_is_answered_with_a_fault(model: type[Model], rows: Rows, operator: Client) -> None:
    listed = url(model, "changelist")
    names = set(re.findall(r"[?&;]([a-z_]+)=", page(operator, listed))) | {"q", "mailbox__id__exact"}
    if model is Mailbox:  # these are answered by what all lists have in common
        names |= QUESTIONS
    for value in NONSENSE:
        for name in sorted(names):
            assert operator.get(f"{listed}?{encoded({name: value})}").status_code in (200, 302, 400), (name, value)
        for view in ("change", "history", "delete") if value else ():
            path = url(model, view, 1).replace("/1/", f"/{encoded({'': value})[1:]}/")
            assert operator.get(path).status_code in (200, 302, 403, 404), path
        for action in ("suspend", "delete_selected", "restore", "remove", value):
            values = {"action": action, "_selected_action": value, "index": value, "select_across": value}
            assert send(operator, listed, values) in (200, 302, 403), (action, value)


@pytest.mark.parametrize("model", [Tenant, Domain, User, Mailbox, Alias])
def test_no_form_is_answered_with_a_fault(model: type[Model], rows: Rows, operator: Client) -> None:
    fields = ["slug", "name", "address", "email", "password", "quota_octets", "tenant", "mailbox", "admin_mailbox"]
    fields += ["retention", "allowed_networks", "groups", "user_permissions", "release", "is_active"]
    for value in NONSENSE:
        values = dict.fromkeys(fields, value)
        assert send(operator, url(model, "add"), values) in (200, 302), value
        assert send(operator, url(model, "change", rows[model]["acme"].pk), values) in (200, 302, 403), value


@pytest.mark.parametrize(
    "lookup",
    ["password__startswith", "user__password__startswith", "address__regex", "tenant__slug", "mailbox__user__email"],
)
def test_a_free_choice_of_lookups_is_refused(lookup: str, rows: Rows, operator: Client) -> None:
    for model in MODELS:
        assert operator.get(url(model, "changelist"), {lookup: "a"}).status_code in (302, 400)


def test_a_large_table_is_not_counted_whole(acme: Customer, operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        add_message(acme.mailbox, subject=f"number {number}")
    monkeypatch.setattr(Bounded, "MOST", 3)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        listed = page(operator, url(Message, "changelist"))
    assert "3 messages" in listed
    counts = [query["sql"] for query in queries if "COUNT(" in query["sql"] and "mailstore_message" in query["sql"]]
    assert counts
    assert all("LIMIT 3" in sql for sql in counts)


@pytest.mark.parametrize("model", MODELS)
def test_a_list_needs_as_many_queries_for_many_rows_as_for_one(
    model: type[Model], rows: Rows, operator: Client, acme: Customer
) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            page(operator, url(model, "changelist"))
        return len(captured)

    before = queries()
    for number in range(5):
        mailbox = acme.add(f"user{number}")
        provisioning.add_alias(f"alias{number}@acme.test", mailbox=mailbox)
        provisioning.add_domain(f"acme{number}.test", tenant=acme.tenant)
        provisioning.add_tenant(f"acme{number}")
        session = add_session(mailbox, add_listener("pop3"))
        add_message(mailbox, first_fetched_in=session, expunged_in=session)
    assert queries() == before


# --- Tenants, domains, logins --------------------------------------------------------------------------------------


def test_an_operator_adds_a_tenant_and_its_domain(operator: Client) -> None:
    assert "was added" in said(operator, url(Tenant, "add"), {"slug": "acme", "name": "Acme Ltd."})
    tenant = Tenant.objects.get()
    assert "a tenant acme already" in said(operator, url(Tenant, "add"), {"slug": "acme", "name": "x"})
    assert "cannot be a slug" in said(operator, url(Tenant, "add"), {"slug": "A_b", "name": "x"})
    values = {"tenant": tenant.pk, "name": "MÜNCHEN.test"}
    assert "was added" in said(operator, url(Domain, "add"), values)
    assert Domain.objects.get().name == "xn--mnchen-3ya.test"
    assert "hosted here already" in said(operator, url(Domain, "add"), values)
    assert "not a domain name" in said(operator, url(Domain, "add"), {"tenant": tenant.pk, "name": "no domain"})


def test_a_tenant_s_staff_changes_its_tenant_with_its_own_mailboxes(
    boss: Client, acme: Customer, globex: Customer
) -> None:
    path = url(Tenant, "change", acme.tenant.pk)
    said(boss, path, {"name": "New", "retention": "3 00:00:00", "admin_mailbox": acme.mailbox.pk})
    acme.tenant.refresh_from_db()
    assert (acme.tenant.name, acme.tenant.admin_mailbox) == ("New", acme.mailbox)
    assert acme.tenant.retention == timedelta(days=3)
    answer = said(boss, path, {"name": "New", "retention": "", "admin_mailbox": globex.mailbox.pk})
    assert "not one of the available choices" in answer
    assert "a retention is from 0" in said(boss, path, {"name": "New", "retention": "-1 00:00:00"})


def test_an_operator_cannot_give_a_tenant_another_s_mailbox(operator: Client, acme: Customer, globex: Customer) -> None:
    path = url(Tenant, "change", acme.tenant.pk)
    values = {"name": "x", "retention": "", "admin_mailbox": globex.mailbox.pk}
    assert "an@globex.test is not a mailbox of acme" in said(operator, path, values)


def test_an_operator_adds_staff_and_gives_it_rights(operator: Client, acme: Customer) -> None:
    values = {"email": "Boss@acme.test", "tenant": acme.tenant.pk, "password": "secret"}
    assert "was added" in said(operator, url(User, "add"), values)
    staff = authenticate(username="boss@acme.test", password="secret")
    assert isinstance(staff, User)
    assert (staff.tenant, staff.is_staff, staff.is_superuser) == (acme.tenant, True, False)
    assert "is taken" in said(operator, url(User, "add"), values)
    group = Group.objects.create(name="helpdesk")
    path = url(User, "change", staff.pk)
    said(operator, path, {"is_active": "on", "is_staff": "on", "groups": [group.pk], "password": "another"})
    assert staff.groups.get() == group
    assert authenticate(username="boss@acme.test", password="another")
    said(operator, path, {"is_staff": "on"})
    assert not authenticate(username="boss@acme.test", password="another")


def test_nobody_locks_himself_out(operator: Client) -> None:
    me = User.objects.get()
    assert "lock himself out" in said(operator, url(User, "change", me.pk), {"is_staff": "on"})
    assert User.objects.get().is_active


def test_the_login_of_a_mailbox_lives_as_long_as_the_mailbox(operator: Client, acme: Customer) -> None:
    path = url(User, "change", acme.mailbox.user_id)
    assert "owns a mailbox" in said(operator, path, {"is_staff": "on"})
    said(operator, path, {"is_active": "on", "is_staff": "on"})
    assert User.objects.get(pk=acme.mailbox.user_id).is_staff


# --- Mailboxes and aliases -----------------------------------------------------------------------------------------


def test_staff_adds_a_mailbox_in_its_own_domains(boss: Client, acme: Customer, globex: Customer) -> None:
    values = {"address": "Binh@ACME.test", "password": "mật khẩu", "quota_octets": "10M"}
    assert 'value="1G"' in page(boss, url(Mailbox, "add"))
    assert "was added" in said(boss, url(Mailbox, "add"), values)
    mailbox = provisioning.find_mailbox("binh@acme.test")
    assert mailbox.quota_octets == 10 * 2**20
    assert authenticate(username="binh@acme.test", password="mật khẩu")
    assert "a mailbox binh@acme.test already" in said(boss, url(Mailbox, "add"), values)
    elsewhere = said(boss, url(Mailbox, "add"), {"address": "binh@globex.test"})
    nowhere = said(boss, url(Mailbox, "add"), {"address": "binh@nowhere.test"})
    assert "globex.test is not hosted here" in elsewhere
    assert "nowhere.test is not hosted here" in nowhere
    assert Mailbox.objects.filter(domain=globex.domain).count() == 1


def test_what_is_refused_stands_in_the_form_and_the_password_does_not(boss: Client, acme: Customer) -> None:
    values = {"address": "binh@acme.test", "password": "secret", "quota_octets": "much"}
    answer = said(boss, url(Mailbox, "add"), values)
    assert "a quota is a number of octets" in answer
    assert "secret" not in answer
    answer = said(boss, url(Mailbox, "add"), {"address": "binh@acme.test", "password": "x" * 249})
    assert "at most 248 octets" in answer
    assert not Mailbox.objects.filter(address="binh@acme.test").exists()


def test_staff_changes_a_mailbox(boss: Client, acme: Customer) -> None:
    path = url(Mailbox, "change", acme.mailbox.pk)
    form = page(boss, path)
    assert acme.mailbox.user.password not in form
    values = {"password": "", "quota_octets": "2G", "allowed_networks": "192.0.2.7,2001:DB8::/32", "retention": ""}
    said(boss, path, values)
    acme.mailbox.refresh_from_db()
    assert acme.mailbox.quota_octets == 2 * 2**30
    assert not acme.mailbox.pop3_enabled
    assert acme.mailbox.allowed_networks == ["192.0.2.7/32", "2001:db8::/32"]
    assert authenticate(username="an@acme.test", password=PASSWORD)
    said(boss, path, values | {"password": "another", "pop3_enabled": "on"})
    assert authenticate(username="an@acme.test", password="another")
    assert "is not a network" in said(boss, path, values | {"allowed_networks": "everywhere"})


def test_the_counters_are_not_for_writing(boss: Client, acme: Customer) -> None:
    values = {"used_octets": "7", "message_count": "7", "next_uid": "7", "address": "x@acme.test", "state": "suspended"}
    said(boss, url(Mailbox, "change", acme.mailbox.pk), values | {"tenant": 1, "closed_at_0": "2026-01-01"})
    found = Mailbox.objects.get(pk=acme.mailbox.pk)
    assert (found.used_octets, found.message_count, found.next_uid) == (0, 0, 1)
    assert (found.address, found.state, found.closed_at) == ("an@acme.test", "active", None)


def test_mailboxes_are_suspended_resumed_and_closed_together(boss: Client, acme: Customer, globex: Customer) -> None:
    binh, chi = acme.add("binh"), acme.add("chi")
    provisioning.close_mailbox(chi)
    answer = act(boss, Mailbox, "suspend", acme.mailbox, binh, chi, globex.mailbox)
    assert "Now suspended: 2" in answer
    assert "closed: 1" in answer
    states = dict(Mailbox.objects.values_list("address", "state"))
    assert states["an@acme.test"] == states["binh@acme.test"] == "suspended"
    assert states["chi@acme.test"] == states["an@globex.test"] == "active"
    assert "Now active: 1" in act(boss, Mailbox, "resume", binh)

    asked = act(boss, Mailbox, "delete_selected", binh, globex.mailbox)
    assert "Close these mailboxes?" in asked
    assert "globex" not in asked
    assert Mailbox.objects.open().count() == 3
    assert "Now closed: 1" in act(boss, Mailbox, "delete_selected", binh, globex.mailbox, post="yes")
    assert set(Mailbox.objects.open()) == {acme.mailbox, globex.mailbox}


def test_one_mailbox_is_closed_after_a_question(boss: Client, acme: Customer) -> None:
    add_message(acme.mailbox)
    path = url(Mailbox, "delete", acme.mailbox.pk)
    assert path in page(boss, url(Mailbox, "change", acme.mailbox.pk))
    assert "Close an@acme.test?" in page(boss, path)
    assert Mailbox.objects.open().exists()
    assert "Closed: an@acme.test." in said(boss, path, {"post": "yes"})
    closed = Mailbox.objects.get()
    assert closed.closed_at
    assert "Closed" in page(boss, url(Mailbox, "changelist"), state="closed")
    view = page(boss, url(Mailbox, "change", closed.pk))
    assert 'name="_save"' not in view
    assert path not in view
    assert "quarantine since" in said(boss, url(Mailbox, "add"), {"address": "an@acme.test"})
    assert "was added" in said(boss, url(Mailbox, "add"), {"address": "an@acme.test", "release": "on"})


@pytest.mark.parametrize(
    ("term", "finds"),
    [
        ("an@", ["an@acme.test", "an@globex.test"]),
        ("AN@acme", ["an@acme.test"]),
        ("@globex.test", ["an@globex.test"]),
        ("sales@acme", ["an@acme.test"]),
        ("acme", []),
        ("%", []),
        ("_n", []),
    ],
)
def test_mailboxes_are_found_by_address_alias_and_domain(
    term: str, finds: list[str], rows: Rows, operator: Client
) -> None:
    listed = page(operator, url(Mailbox, "changelist"), q=term)
    assert re.findall(r">(an@[a-z.]+)</a>", listed) == finds


def test_lists_are_narrowed_by_state_and_tenant(rows: Rows, operator: Client, acme: Customer) -> None:
    provisioning.suspend(acme.mailbox)

    def found(**query: Any) -> list[str]:
        return re.findall(r">(an@[a-z.]+)</a>", page(operator, url(Mailbox, "changelist"), **query))

    assert found(state="suspended") == ["an@acme.test"]
    assert found(state="active") == ["an@globex.test"]
    assert found(state="closed") == []
    assert found(tenant__id__exact=acme.tenant.pk) == ["an@acme.test"]
    assert found(tenant__id__exact=acme.tenant.pk, state="active") == []
    assert found(pop3_enabled__exact=0) == []


def test_with_many_tenants_a_list_is_still_narrowed_by_a_link(rows: Rows, operator: Client, acme: Customer) -> None:
    Tenant.objects.bulk_create(Tenant(slug=f"t{number}", name="x") for number in range(100))
    listed = page(operator, url(Mailbox, "changelist"), tenant__id__exact=acme.tenant.pk)
    assert re.findall(r">(an@[a-z.]+)</a>", listed) == ["an@acme.test"]


def test_staff_adds_changes_and_removes_aliases_of_its_own_mailboxes(
    boss: Client, acme: Customer, globex: Customer
) -> None:
    binh = acme.add("binh")
    values = {"address": "Sales@acme.test", "targets": "an@acme.test"}
    assert "was added" in said(boss, url(Alias, "add"), values)
    alias = Alias.objects.get()
    assert "already" in said(boss, url(Alias, "add"), values)
    assert "not hosted here" in said(boss, url(Alias, "add"), values | {"address": "sales@globex.test"})
    theirs = said(boss, url(Alias, "add"), {"address": "x@acme.test", "targets": "an@globex.test"})
    nobody = said(boss, url(Alias, "add"), {"address": "x@acme.test", "targets": "nobody@globex.test"})
    assert "no MTA" in theirs  # as for any address outside
    assert "no MTA" in nobody
    assert "was changed" in said(boss, url(Alias, "change", alias.pk), {"targets": f"AN@acme.test\n{binh}"})
    assert provisioning.targets_of(alias) == ["an@acme.test", "binh@acme.test"]
    assert "was deleted" in said(boss, url(Alias, "delete", alias.pk), {"post": "yes"})
    other, _ = provisioning.add_alias("other@globex.test", mailbox=globex.mailbox)
    act(boss, Alias, "delete_selected", other, post="yes")
    assert list(Alias.objects.all()) == [other]
