import html
import re
from datetime import timedelta
from typing import Any
from urllib.parse import quote, urljoin

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth import authenticate
from django.contrib.contenttypes.models import ContentType
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from accounts import app_passwords, limits, permissions, provisioning, together, tokens, webhooks
from accounts.models import (
    Alias,
    ApiToken,
    AppPassword,
    AuditEvent,
    Domain,
    Event,
    FailedLogin,
    Mailbox,
    Plan,
    Reseller,
    Role,
    Tenant,
    User,
    Webhook,
    WebhookDelivery,
)
from accounts.principals import Principal
from accounts.scoped import Bounded
from mailstore.models import (
    BackgroundRun,
    DailyStatistics,
    HourlyStatistics,
    ImportJob,
    Listener,
    MaildropSession,
    Message,
    PurgeForecast,
    Refusal,
)
from tests.fixtures import PASSWORD, Customer, signed_in
from tests.mailstore.rows import add_failed_login, add_listener, add_message, add_session

RESOURCES: dict[type[Model], str] = {
    Reseller: "resellers",
    Plan: "plans",
    Tenant: "tenants",
    Domain: "domains",
    User: "logins",
    Mailbox: "mailboxes",
    Alias: "aliases",
    AppPassword: "app-passwords",
    ApiToken: "tokens",
    Webhook: "webhooks",
    WebhookDelivery: "webhooks",
    AuditEvent: "audit-events",
    FailedLogin: "why",
    MaildropSession: "sessions",
    ImportJob: "imports",
    Listener: "listeners",
    Message: "messages",
    Refusal: "why",
    HourlyStatistics: "usage",
    DailyStatistics: "usage",
    PurgeForecast: "usage",
    BackgroundRun: "listeners",
}
"""By model, its row in the table of who may do what."""
MODELS = list(RESOURCES)
OF_THE_HOST = {Listener, BackgroundRun}
ONLY_SHOWN = OF_THE_HOST | {
    WebhookDelivery, AuditEvent, FailedLogin, MaildropSession, Message, Refusal, HourlyStatistics, DailyStatistics,
    PurgeForecast,
}  # fmt: skip
NEVER_CHANGED = ONLY_SHOWN | {ApiToken, ImportJob}
ROLES = [role for role in Role if role != Role.MEMBER]


def url(model: type[Model], view: str, *arguments: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{view}", args=arguments)


def listed_at(model: type[Model], row: Model) -> str:
    """The page to which the list leads."""
    return url(model, "messages" if model is Mailbox else "change", row.pk)


def page(client: Client, path: str, **query: Any) -> str:
    response = client.get(path, query)
    assert response.status_code == 200, (path, response.status_code)
    return response.content.decode()


def said(client: Client, path: str, values: dict[str, Any], status: int = 200) -> str:
    """What the page says after a form was sent; following a redirect that comes with success."""
    response = client.post(path, values, follow=True)
    assert response.status_code == status
    return response.content.decode()


def upload(text: str) -> SimpleUploadedFile:
    return SimpleUploadedFile("list.csv", text.encode())


SURE = {"asked": "yes", "sure": "yes"}
"""How the question of an action is answered."""


def facts(page: str) -> dict[str, str]:
    """What a page says before something is done."""
    return dict(re.findall(r'<tr><th scope="row"[^>]*>([^<]*)</th><td>([^<]*)</td>', page))


def act(client: Client, model: type[Model], action: str, *rows: Model, **more: Any) -> str:
    values = {"action": action, "_selected_action": [str(row.pk) for row in rows], **more}
    return said(client, url(model, "changelist"), values)


@pytest.fixture
def rows(acme: Customer, globex: Customer) -> dict[type[Model], dict[str, Model]]:
    """One row of each model for each tenant."""
    found: dict[type[Model], dict[str, Model]] = {model: {} for model in MODELS}
    for customer in (acme, globex):
        slug = customer.tenant.slug
        reseller, _ = provisioning.add_reseller(f"seller-of-{slug}")
        provisioning.change_tenant(customer.tenant, reseller=reseller)
        listener = add_listener("pop3", host=f"host-of-{slug}")
        session = add_session(customer.mailbox, listener)
        alias, _ = provisioning.add_alias(f"sales@{customer.domain}", mailbox=customer.mailbox)
        message = add_message(customer.mailbox, subject=f"About {slug}", sender=f"someone@{slug}.example")
        by = Principal(role="tenant-admin", tenant_id=customer.tenant.pk)
        webhook, _ = webhooks.add(f"https://{slug}.example/", tenant=customer.tenant, allow_private=False)
        event = Event.objects.create(tenant=customer.tenant, kind="mailbox.created", payload={})
        found[Reseller][slug] = reseller
        found[Plan][slug], _ = provisioning.add_plan(f"plan-of-{slug}", reseller=reseller)
        found[AppPassword][slug], _ = app_passwords.create(customer.mailbox, name=f"phone of {slug}")
        found[ApiToken][slug], _ = tokens.make(
            by=by, name=f"of {slug}", role="tenant-admin", scopes=["mailboxes:read"], tenant=customer.tenant
        )
        found[Webhook][slug] = webhook
        found[WebhookDelivery][slug] = WebhookDelivery.objects.create(
            tenant=customer.tenant, webhook=webhook, event=event
        )
        found[AuditEvent][slug] = AuditEvent.objects.get(domain_id=customer.domain.pk, action="domain.added")
        found[Tenant][slug] = customer.tenant
        found[Domain][slug] = customer.domain
        found[User][slug] = customer.mailbox.user
        found[Mailbox][slug] = customer.mailbox
        found[Alias][slug] = alias
        found[MaildropSession][slug] = session
        found[ImportJob][slug] = ImportJob.objects.create(
            tenant=customer.tenant, mailbox=customer.mailbox, source="pop3", host=f"pop.{slug}.example", login="an"
        )
        found[Listener][slug] = listener
        found[FailedLogin][slug] = add_failed_login(customer.mailbox)
        found[Message][slug] = message
        of_domain: dict[str, Any] = {"tenant": customer.tenant, "domain": customer.domain}
        now = timezone.now()
        found[Refusal][slug] = Refusal.objects.create(
            **of_domain, mailbox=customer.mailbox, reason="over quota", count=1, hour=now, first_at=now, last_at=now,
            sender_domain=f"{slug}.example",
        )  # fmt: skip
        found[HourlyStatistics][slug] = HourlyStatistics.objects.create(**of_domain, start=now)
        found[DailyStatistics][slug] = DailyStatistics.objects.create(**of_domain, start=now)
        found[PurgeForecast][slug] = PurgeForecast.objects.create(
            **of_domain, day=now.date(), messages=1, octets=1, mailboxes=0
        )
        found[BackgroundRun][slug] = BackgroundRun.objects.create(
            kind="worker", process=f"celery@host-of-{slug}", task="purge", at=now
        )
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
        assert listed_at(model, row) in listed
        page(operator, url(model, "change", row.pk))
        assert operator.get(url(model, "history", row.pk), follow=True).status_code == 200


@pytest.mark.parametrize("model", MODELS)
def test_what_belongs_to_another_tenant_does_not_exist(model: type[Model], rows: Rows, boss: Client) -> None:
    theirs = rows[model]["globex"]
    if model not in OF_THE_HOST | {Reseller, Plan}:
        ours = rows[model]["acme"]
        listed = page(boss, url(model, "changelist"))
        assert listed_at(model, ours) in listed
        assert "globex" not in listed
        assert "globex" not in page(boss, url(model, "change", ours.pk))
        assert "globex" not in boss.get(url(model, "history", ours.pk), follow=True).content.decode()
    nowhere = 999_999 if model is not MaildropSession else "00000000-0000-0000-0000-000000000000"
    for view in ("change", "history", "delete"):
        for method in (boss.get, boss.post):
            answer, to_nowhere = (method(url(model, view, pk)) for pk in (theirs.pk, nowhere))
            assert answer.status_code == to_nowhere.status_code
            assert answer.status_code in (302, 403, 404)
            assert "globex" not in answer.content.decode()
    assert boss.get(f"/admin/r/{ContentType.objects.get_for_model(model).pk}/{theirs.pk}/").status_code == 404


@pytest.fixture
def somebody(rows: "Rows", acme: Customer, role: str) -> Client:
    """A browser in which somebody with this role, who looks after acme, has signed in."""
    whose: dict[str, Any] = {"tenant": acme.tenant}
    if role == Role.OPERATOR:
        whose = {}
    if role == Role.RESELLER:
        whose = {"reseller": rows[Reseller]["acme"]}
    domains = [acme.domain] if role == Role.DOMAIN_ADMIN else []
    return signed_in(provisioning.add_staff("who@acme.example", password=None, role=role, domains=domains, **whose))


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("model", MODELS)
def test_everybody_may_do_what_the_table_says(model: type[Model], role: str, rows: "Rows", somebody: Client) -> None:
    table = permissions.TABLE[RESOURCES[model]]

    def may(verb: str) -> bool:
        return role in table.get(verb, ())

    own, foreign = rows[model]["acme"].pk, rows[model]["globex"].pk
    nowhere = 999_999 if model is not MaildropSession else "00000000-0000-0000-0000-000000000000"
    reads = may("read")
    creates = may("create") and model not in ONLY_SHOWN
    changes = may("change") and model not in NEVER_CHANGED
    deletes = may("delete") and model not in ONLY_SHOWN

    assert somebody.get(url(model, "changelist")).status_code == (200 if reads else 403)
    index = page(somebody, reverse("admin:index"))
    assert (url(model, "changelist") in index) == reads
    assert somebody.get(url(model, "add")).status_code == (200 if creates else 403)
    shown = somebody.get(url(model, "change", own))
    assert shown.status_code in ((200,) if reads else (302, 403))  # 302: it does not even exist for him
    assert ('name="_save"' in shown.content.decode()) == changes
    if not changes:
        assert somebody.post(url(model, "change", own), {}).status_code in (302, 403)
    assert somebody.get(url(model, "delete", own)).status_code in ((200,) if deletes else (302, 403))
    history = somebody.get(url(model, "history", own), follow=True)
    assert history.status_code == (200 if role in permissions.TABLE["audit-events"]["read"] else 403)

    if role == Role.OPERATOR:
        assert somebody.get(url(model, "change", foreign)).status_code == 200
        return
    for view in ("change", "delete", "history"):
        for method in (somebody.get, somebody.post):
            theirs, nothing = (method(url(model, view, pk)) for pk in (foreign, nowhere))
            assert theirs.status_code == nothing.status_code
            assert theirs.status_code in (302, 403, 404)
            assert "globex" not in theirs.content.decode()
    if reads:
        assert "globex" not in page(somebody, url(model, "changelist"))
        assert "globex" not in shown.content.decode()
        act(somebody, model, "delete_selected", rows[model]["globex"], post="yes")
        assert model._default_manager.filter(pk=foreign).exists()


@pytest.mark.parametrize("role", ROLES)
def test_csv_is_for_whom_the_table_says(role: str, rows: "Rows", somebody: Client) -> None:
    for model in (Mailbox, Alias):
        table = permissions.TABLE[RESOURCES[model]]
        name = f"admin:accounts_{model._meta.model_name}"
        listed = page(somebody, url(model, "changelist"))
        for what, verb in (("import", "create"), ("export", "list-export")):
            path = reverse(f"{name}_{what}")
            assert (path in listed) == (role in table[verb])
            answer = somebody.get(path)
            assert answer.status_code == (200 if role in table[verb] else 403)
            if what == "export" and answer.status_code == 200:
                written = b"".join(answer.streaming_content).decode()  # type: ignore[attr-defined]
                assert "@acme.test" in written
                assert ("globex" in written) == (role == Role.OPERATOR)
                assert "argon2" not in written


def test_the_owner_of_a_mailbox_is_asked_to_sign_in_as_somebody_else(acme: Customer) -> None:
    owner = Client()
    owner.force_login(acme.mailbox.user)
    assert owner.get(url(Mailbox, "changelist")).status_code == 302


def test_the_owner_of_a_mailbox_who_was_let_in_may_do_nothing(rows: "Rows", acme: Customer) -> None:
    User.objects.filter(pk=acme.mailbox.user_id).update(is_staff=True)
    owner = signed_in(User.objects.get(pk=acme.mailbox.user_id))
    for model in MODELS:
        assert owner.get(url(model, "changelist")).status_code == 403


def test_nobody_gives_himself_rights(rows: "Rows", boss: Client, acme: Customer) -> None:
    index = page(boss, reverse("admin:index"))
    assert "/admin/auth/" not in index
    assert boss.get("/admin/auth/group/").status_code == 404
    me = User.objects.get(email="boss@acme.test")
    answer = said(boss, url(User, "change", me.pk), {"is_superuser": "on", "is_staff": "on", "is_active": "on"})
    assert "was changed" in answer
    values = {"email": "x@acme.test", "role": "operator", "tenant": "", "is_superuser": "on"}
    assert "not one of the available choices" in said(boss, url(User, "add"), values)
    assert not User.objects.filter(tenant=acme.tenant, is_superuser=True).exists()
    session = rows[MaildropSession]["acme"]
    assert "host-of" not in page(boss, url(MaildropSession, "change", session.pk))


def test_nobody_takes_over_who_may_more_than_himself(rows: "Rows", acme: Customer) -> None:
    provisioning.set_role(acme.mailbox.user, "tenant-admin")
    head = signed_in(
        provisioning.add_staff(
            "head@acme.test", password=None, tenant=acme.tenant, role="domain-admin", domains=[acme.domain]
        )
    )
    path = url(Mailbox, "change", acme.mailbox.pk)
    answer = said(head, path, {"password": "mine now", "state": "active"})
    assert "looks after more than a mailbox" in answer
    text = "address,password\nan@acme.test,mine now\n"
    for _ in range(2):
        answer = said(head, reverse("admin:accounts_mailbox_import"), {"file": upload(text), "update": "on"})
        assert "looks after more than a mailbox" in answer
    assert not authenticate(username="an@acme.test", password="mine now")


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
        for action in ("suspend", "set_quota", "export_chosen", "delete_selected", "restore", "remove", value):
            values = {"action": action, "_selected_action": value, "index": value, "select_across": value}
            assert send(operator, listed, values) in (200, 302, 403), (action, value)


@pytest.mark.parametrize("model", [model for model in MODELS if model not in ONLY_SHOWN])
def test_no_form_is_answered_with_a_fault(model: type[Model], rows: Rows, operator: Client) -> None:
    fields = ["slug", "name", "address", "email", "password", "quota_octets", "tenant", "mailbox", "admin_mailbox"]
    fields += ["retention", "allowed_networks", "release", "is_active", "role", "reseller", "domains", "external_id"]
    fields += ["state", "state_reason", "new_address", "max_mailboxes", "max_octets", "url", "events", "expires_at_0"]
    fields += ["alias_of", "subaddress", "targets", "scopes", "requests_per_minute", "file", "content"]
    for value in NONSENSE:
        values = dict.fromkeys(fields, value)
        assert send(operator, url(model, "add"), values) in (200, 302), value
        if model in (Mailbox, Alias):
            path = reverse(f"admin:accounts_{model._meta.model_name}_import")
            assert send(operator, path, values) == 200, value
            assert send(operator, path, values | {"apply": "x"}) == 200, value
        assert send(operator, url(model, "change", rows[model]["acme"].pk), values) in (200, 302, 403), value


def linked(shown: str) -> set[str]:
    """Where a page's links to lists that are narrowed, filtered or sorted lead to."""
    return {html.unescape(path) for path in re.findall(r'href="([^"#]*\?[^"]*)"', shown)}


@pytest.mark.parametrize("model", MODELS)
def test_every_link_of_a_list_and_of_an_object_s_page_leads_somewhere(
    model: type[Model], rows: Rows, operator: Client
) -> None:
    changelist, change = url(model, "changelist"), url(model, "change", rows[model]["acme"].pk)
    listed, shown = linked(page(operator, changelist)), linked(page(operator, change))
    if admin.site.get_model_admin(model).list_filter:
        assert listed
    for path in {urljoin(changelist, to) for to in listed} | {urljoin(change, to) for to in shown}:
        assert operator.get(path).status_code == 200, path


def test_the_audit_is_narrowed_to_a_mailbox_and_to_who_had_no_role(
    rows: Rows, operator: Client, acme: Customer, globex: Customer
) -> None:
    [path] = [to for to in linked(page(operator, url(Mailbox, "change", acme.mailbox.pk))) if "auditevent" in to]
    events = AuditEvent.objects.filter(mailbox_id=acme.mailbox.pk)
    AuditEvent.objects.create(
        action="mailbox.suspend", target_kind="mailbox", mailbox_id=acme.mailbox.pk, role="operator", through="admin"
    )
    shown = page(operator, path)
    assert set(map(int, re.findall(r"auditevent/(\d+)/change", shown))) == set(events.values_list("pk", flat=True))
    assert "manage.py / system" in shown
    found = page(operator, path, mailbox_id__exact=acme.mailbox.pk, role="none")
    assert set(map(int, re.findall(r"auditevent/(\d+)/change", found))) == set(
        events.filter(role="").values_list("pk", flat=True)
    )


def test_the_audit_leads_to_what_exists_for_whoever_looks(
    boss: Client, operator: Client, acme: Customer, globex: Customer
) -> None:
    def links_of(client: Client) -> list[str]:
        return re.findall(r'<a href="([^"]*)">mailbox an@[a-z.]+</a>', page(client, url(AuditEvent, "changelist")))

    both = {url(Mailbox, "change", customer.mailbox.pk) for customer in (acme, globex)}
    assert both <= set(links_of(operator))
    assert set(links_of(boss)) == {url(Mailbox, "change", acme.mailbox.pk)}
    event = AuditEvent.objects.filter(mailbox_id=acme.mailbox.pk).latest("pk")
    assert url(Mailbox, "change", acme.mailbox.pk) in page(boss, url(AuditEvent, "change", event.pk))
    Mailbox.objects.filter(pk=acme.mailbox.pk).delete()
    assert not links_of(boss)


def test_the_history_of_a_row_is_what_the_audit_tells_of_it(boss: Client, acme: Customer, globex: Customer) -> None:
    acme.add("binh")
    assert url(Mailbox, "history", acme.mailbox.pk) in page(boss, url(Mailbox, "change", acme.mailbox.pk))
    response = boss.get(url(Mailbox, "history", acme.mailbox.pk), follow=True)
    shown = response.content.decode()
    assert response.status_code == 200
    assert ">mailbox an@acme.test<" in shown
    assert "binh@acme.test" not in shown
    hidden = boss.get(url(Mailbox, "history", globex.mailbox.pk), follow=True).content.decode()
    assert "an@globex.test" not in hidden


def test_a_refusal_is_one_line_in_the_log(
    boss: Client, operator: Client, acme: Customer, caplog: pytest.LogCaptureFixture
) -> None:
    assert boss.get(url(Listener, "changelist")).status_code == 403
    assert operator.get(url(Listener, "changelist"), {"host__regex": "a"}).status_code == 400
    [record] = [record for record in caplog.records if record.name.startswith("django")]
    assert (record.levelname, record.exc_info) == ("WARNING", None)
    assert record.getMessage() == "Forbidden (Permission denied): /admin/mailstore/listener/"


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


def test_an_operator_adds_staff(operator: Client, acme: Customer, globex: Customer) -> None:
    values = {"email": "Boss@acme.test", "role": "tenant-admin", "tenant": acme.tenant.pk, "password": "secret"}
    assert "was added" in said(operator, url(User, "add"), values)
    staff = authenticate(username="boss@acme.test", password="secret")
    assert isinstance(staff, User)
    assert (staff.tenant, staff.is_staff, staff.is_superuser) == (acme.tenant, True, False)
    assert "is taken" in said(operator, url(User, "add"), values)
    path = url(User, "change", staff.pk)
    said(operator, path, {"is_active": "on", "is_staff": "on", "password": "another"})
    assert authenticate(username="boss@acme.test", password="another")
    said(operator, path, {"is_staff": "on"})
    assert not authenticate(username="boss@acme.test", password="another")
    values |= {"email": "head@acme.test", "role": "domain-admin", "domains": "globex.test"}
    assert "not a domain of the login" in said(operator, url(User, "add"), values)
    assert "was added" in said(operator, url(User, "add"), values | {"domains": "acme.test"})
    head = User.objects.get(email="head@acme.test")
    assert list(head.domains.all()) == [acme.domain]
    assert "Removed" in said(operator, url(User, "delete", head.pk), {"post": "yes"})
    assert "cannot be reseller" in said(operator, url(User, "add"), values | {"role": "reseller", "domains": ""})


def test_a_tenant_s_admin_adds_staff_of_its_own(boss: Client, acme: Customer, globex: Customer) -> None:
    values = {"email": "help@acme.test", "role": "support", "tenant": globex.tenant.pk}
    assert "was added" in said(boss, url(User, "add"), values)
    assert User.objects.get(email="help@acme.test").tenant == acme.tenant
    me = User.objects.get(email="boss@acme.test")
    assert "lock himself out" in said(boss, url(User, "delete", me.pk), {"post": "yes"})
    said(boss, url(User, "change", acme.mailbox.user_id), {"role": "support", "is_active": "on"})
    assert User.objects.get(pk=acme.mailbox.user_id).role == "support"
    assert "owns a mailbox" in said(boss, url(User, "delete", acme.mailbox.user_id), {"post": "yes"})


def test_a_reseller_makes_tenants_and_limits_them(rows: "Rows", acme: Customer) -> None:
    seller = signed_in(
        provisioning.add_staff("s@seller.test", password=None, reseller=Reseller.objects.get(slug="seller-of-acme"))
    )
    assert "was added" in said(seller, url(Tenant, "add"), {"slug": "initech", "name": "Initech"})
    made = Tenant.objects.get(slug="initech")
    assert made.reseller == rows[Reseller]["acme"]
    path = url(Tenant, "change", acme.tenant.pk)
    values = {"name": "Acme", "max_mailboxes": "1", "max_octets": "5G", "reseller": ""}
    assert "was changed" in said(seller, path, values)
    acme.tenant.refresh_from_db()
    assert acme.tenant.reseller == rows[Reseller]["acme"]  # only the host gives a tenant away
    assert (limits.of(acme.tenant).max_mailboxes, limits.of(acme.tenant).max_octets) == (1, 5 * 2**30)
    assert "1 of 1 mailbox;" in page(seller, path)
    assert "may have 1 mailbox" in said(seller, url(Mailbox, "add"), {"address": "binh@acme.test"})
    assert "Closed" in said(seller, url(Tenant, "delete", made.pk), {"post": "yes"})


def test_who_may_not_set_limits_sees_them(rows: "Rows", boss: Client, acme: Customer) -> None:
    limits.set_limits(acme.tenant, max_mailboxes=7)
    path = url(Tenant, "change", acme.tenant.pk)
    shown = page(boss, path)
    assert "1 domain, no limit; 1 of 7 mailboxes" in shown
    assert "max_mailboxes" not in shown
    assert "was changed" in said(boss, path, {"name": "Acme", "max_mailboxes": ""})
    assert limits.of(acme.tenant).max_mailboxes == 7


def test_nobody_locks_himself_out(operator: Client) -> None:
    me = User.objects.get()
    assert "lock himself out" in said(operator, url(User, "change", me.pk), {"is_staff": "on"})
    assert User.objects.get().is_active


def test_the_login_of_a_mailbox_lives_as_long_as_the_mailbox(operator: Client, acme: Customer) -> None:
    path = url(User, "change", acme.mailbox.user_id)
    assert "owns a mailbox" in said(operator, path, {"role": "member"})
    assert "only with another role" in said(operator, path, {"role": "member", "is_active": "on", "is_staff": "on"})
    said(operator, path, {"is_active": "on", "role": "tenant-admin"})
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
    values = {"password": "", "quota_octets": "2G", "allowed_networks": "192.0.2.7,2001:DB8::/32", "state": "active"}
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
    values = {"used_octets": "7", "message_count": "7", "next_uid": "7", "address": "x@acme.test", "state": "active"}
    said(boss, url(Mailbox, "change", acme.mailbox.pk), values | {"tenant": 1, "closed_at_0": "2026-01-01"})
    found = Mailbox.objects.get(pk=acme.mailbox.pk)
    assert (found.used_octets, found.message_count, found.next_uid) == (0, 0, 1)
    assert (found.address, found.state, found.closed_at) == ("an@acme.test", "active", None)


def test_mailboxes_are_suspended_resumed_and_closed_together(boss: Client, acme: Customer, globex: Customer) -> None:
    binh, chi = acme.add("binh"), acme.add("chi")
    provisioning.close_mailbox(chi)
    answer = act(boss, Mailbox, "suspend", acme.mailbox, binh, chi, globex.mailbox, **SURE)
    assert "Now suspended: 2" in answer
    assert "Left as it was, chi@acme.test: chi@acme.test is closed." in answer
    states = dict(Mailbox.objects.values_list("address", "state"))
    assert states["an@acme.test"] == states["binh@acme.test"] == "suspended"
    assert states["chi@acme.test"] == states["an@globex.test"] == "active"
    assert "Now active: 1" in act(boss, Mailbox, "resume", binh, **SURE)

    asked = act(boss, Mailbox, "delete_selected", binh, globex.mailbox)
    assert "Close this mailbox?" in asked
    assert "globex" not in asked
    assert Mailbox.objects.open().count() == 3
    assert "Now closed: 1" in act(boss, Mailbox, "delete_selected", binh, globex.mailbox, post="yes")
    assert set(Mailbox.objects.open()) == {acme.mailbox, globex.mailbox}


def test_an_action_says_in_numbers_what_it_will_do(boss: Client, acme: Customer, globex: Customer) -> None:
    binh, chi = acme.add("binh"), acme.add("chi")
    provisioning.close_mailbox(chi)
    Mailbox.objects.filter(pk=binh.pk).update(used_octets=2048, message_count=1)
    asked = act(boss, Mailbox, "suspend", acme.mailbox, binh, chi, globex.mailbox)
    assert facts(asked) == {
        "Become suspended": "2", "Until now: Active": "2", "Messages in them": "1", "Octets in them": "2K",
        "Closed: left as they are": "1",
    }  # fmt: skip
    assert Mailbox.objects.filter(state="suspended").count() == 0
    looked = act(boss, Mailbox, "suspend", binh, asked="yes", reason="Not <paid>")
    assert 'name="reason" value="Not &lt;paid&gt;"' in looked
    assert Mailbox.objects.filter(state="suspended").count() == 0
    act(boss, Mailbox, "suspend", binh, reason="Not <paid>", **SURE)
    assert Mailbox.objects.get(state="suspended").state_reason == "Not <paid>"


def test_what_is_in_that_state_already_is_left_as_it_is_and_counted(
    boss: Client, acme: Customer, globex: Customer
) -> None:
    binh, chi = acme.add("binh"), acme.add("chi")
    chosen = (acme.mailbox, binh, chi, globex.mailbox)
    provisioning.suspend(binh, reason="Not paid")
    provisioning.suspend(chi, reason="Left")
    asked = facts(act(boss, Mailbox, "suspend", *chosen))
    assert (asked["Become suspended"], asked["Suspended already"]) == ("1", "2")
    looked = facts(act(boss, Mailbox, "suspend", *chosen, asked="yes", reason="Left"))
    assert looked == {
        "Become suspended": "1", "Until now: Active": "1", "Messages in them": "0", "Octets in them": "0",
        "Suspended: only the reason changes": "1", "Suspended: left as they are": "1",
    }  # fmt: skip
    told = act(boss, Mailbox, "suspend", *chosen, reason="Left", **SURE)
    assert "Now suspended: 2. So already: 1." in told
    assert not LogEntry.objects.filter(object_id=str(chi.pk)).exists()
    provisioning.resume(binh)
    assert facts(act(boss, Mailbox, "resume", *chosen)) == {
        "Become active": "2", "Until now: Suspended": "2", "Messages in them": "0", "Octets in them": "0",
        "Active: left as they are": "1",
    }  # fmt: skip
    assert "Now active: 2. So already: 1." in act(boss, Mailbox, "resume", *chosen, **SURE)
    globex.mailbox.refresh_from_db()
    assert globex.mailbox.state_reason == ""


def test_only_closed_mailboxes_that_can_be_are_reopened(boss: Client, acme: Customer, globex: Customer) -> None:
    names = ("binh", "chi", "dung", "giang")
    binh, chi, dung, giang = (acme.add(name) for name in names)
    Mailbox.objects.filter(pk=binh.pk).update(used_octets=2048, message_count=1)
    for mailbox in (binh, chi, dung, giang, globex.mailbox):
        provisioning.close_mailbox(mailbox)
    provisioning.add_alias("chi@acme.test", mailbox=acme.mailbox, release=True)
    provisioning.add_mailbox("dung@acme.test", password=None, quota_octets=None, release=True)
    Mailbox.objects.filter(pk=giang.pk).update(retention=timedelta(0))
    chosen = (acme.mailbox, binh, chi, dung, giang, globex.mailbox)
    assert facts(act(boss, Mailbox, "reopen", *chosen)) == {
        "Become open": "1", "Messages in them": "1", "Octets in them": "2K",
        "Cannot be reopened: left as they are": "3", "Open now: left as they are": "1",
    }  # fmt: skip
    told = act(boss, Mailbox, "reopen", *chosen, **SURE)
    assert "Now open: 1. So already: 1." in told
    assert told.count("Left as it was") == 3
    assert not Mailbox.objects.open().filter(pk__in=[chi.pk, dung.pk, giang.pk, globex.mailbox.pk]).exists()


def test_mailboxes_of_closed_domains_cannot_be_reopened(boss: Client, acme: Customer) -> None:
    provisioning.close_domain(acme.domain)
    assert facts(act(boss, Mailbox, "reopen", acme.mailbox))["Cannot be reopened: left as they are"] == "1"
    assert "Now open: 1." in act(boss, Domain, "reopen", acme.domain)
    assert "Now open: 0. So already: 1." in act(boss, Domain, "reopen", acme.domain)
    assert facts(act(boss, Mailbox, "reopen", acme.mailbox))["Become open"] == "1"


def test_what_has_ended_does_not_end_again(boss: Client, acme: Customer, globex: Customer) -> None:
    binh = acme.add("binh")
    provisioning.close_mailbox(binh)
    asked = act(boss, Mailbox, "delete_selected", acme.mailbox, binh, globex.mailbox)
    assert "Close this mailbox?" in asked
    assert facts(asked) == {
        "Mailboxes": "1", "Active": "1", "Messages in them": "0", "Octets in them": "0",
        "Closed: left as they are": "1",
    }  # fmt: skip
    assert "Now closed: 0. So already: 1." in act(boss, Mailbox, "delete_selected", binh)
    (lost, _), (used, _) = (app_passwords.create(acme.mailbox, name=name) for name in ("lost", "used"))
    app_passwords.revoke(lost)
    assert facts(act(boss, AppPassword, "delete_selected", lost, used)) == {"Revoked: left as they are": "1"}
    told = act(boss, AppPassword, "delete_selected", lost, used, post="yes")
    assert "Now revoked: 1. So already: 1." in told


def test_a_quota_is_set_for_many_after_a_look(boss: Client, acme: Customer, globex: Customer) -> None:
    binh, chi, dung = acme.add("binh"), acme.add("chi", quota_octets=1024), acme.add("dung")
    provisioning.close_mailbox(dung)
    provisioning.change_mailbox(acme.mailbox, quota_octets=100)
    Mailbox.objects.filter(pk=binh.pk).update(used_octets=2048)
    chosen = (acme.mailbox, binh, chi, dung, globex.mailbox)
    assert facts(act(boss, Mailbox, "set_quota", *chosen)) == {
        "Open mailboxes": "3", "The fullest of them uses": "2K", "Closed: left as they are": "1",
    }  # fmt: skip
    looked = facts(act(boss, Mailbox, "set_quota", *chosen, asked="yes", quota_octets="1K"))
    assert looked == {
        "Open mailboxes": "3", "The fullest of them uses": "2K", "New quota": "1K", "Get less than now": "1",
        "Get more than now": "1", "Use more than that": "1: it takes no new mail until enough was removed",
        "Have that quota: left as they are": "1", "Closed: left as they are": "1",
    }  # fmt: skip
    unlimited = facts(act(boss, Mailbox, "set_quota", *chosen, asked="yes", quota_octets=""))
    assert (unlimited["Get more than now"], unlimited["Have that quota: left as they are"]) == ("2", "1")
    assert "a quota is a number of octets" in act(boss, Mailbox, "set_quota", *chosen, quota_octets="much", **SURE)
    told = act(boss, Mailbox, "set_quota", *chosen, quota_octets="1K", **SURE)
    assert "Now with that quota: 2. So already: 1." in told
    assert dict(Mailbox.objects.values_list("address", "quota_octets")) == {
        "an@acme.test": 1024, "binh@acme.test": 1024, "chi@acme.test": 1024, "dung@acme.test": None,
        "an@globex.test": None,
    }  # fmt: skip


def test_tenants_are_moved_to_a_plan_after_a_look(operator: Client, acme: Customer, globex: Customer) -> None:
    small, _ = provisioning.add_plan("small", name="Small", max_mailboxes=1, max_octets=1024)
    acme.add("binh")
    chosen = (acme.tenant, globex.tenant)
    assert facts(act(operator, Tenant, "move_plan", *chosen)) == {"Tenants": "2"}
    looked = facts(act(operator, Tenant, "move_plan", *chosen, asked="yes", plan=small.pk))
    assert looked == {
        "Tenants": "2", "Plan": "Small", "Move to it": "2", "Domains": "no limit",
        "Mailboxes": "1; 1 tenant has more", "Aliases": "no limit", "Octets": "1K",
    }  # fmt: skip
    assert Tenant.objects.filter(plan=small).count() == 0
    assert "Now on the plan small: 2." in act(operator, Tenant, "move_plan", *chosen, plan=small.pk, **SURE)
    assert limits.of(globex.tenant).max_mailboxes == 1
    assert f"{url(Tenant, 'changelist')}?plan__id__exact={small.pk}" in page(operator, url(Plan, "changelist"))


def test_tenants_of_others_and_on_the_plan_already_are_told_apart(
    operator: Client, acme: Customer, globex: Customer
) -> None:
    small, _ = provisioning.add_plan("small", max_mailboxes=1)
    south, _ = provisioning.add_tenant("south", reseller=provisioning.add_reseller("north")[0])
    umbra, _ = provisioning.add_tenant("umbra")
    chosen = (acme.tenant, globex.tenant, south, umbra)
    for tenant in (acme.tenant, globex.tenant):
        provisioning.move_to_plan(tenant, small)
    limits.set_limits(globex.tenant, max_mailboxes=7)
    looked = facts(act(operator, Tenant, "move_plan", *chosen, asked="yes", plan=small.pk))
    assert looked == {
        "Tenants": "4", "Plan": "small", "Move to it": "1", "On it already: get its limits again": "1",
        "On it already: left as they are": "1", "Of another reseller: left as they are": "1",
        "Domains": "no limit", "Mailboxes": "1", "Aliases": "no limit", "Octets": "no limit",
    }  # fmt: skip
    told = act(operator, Tenant, "move_plan", *chosen, plan=small.pk, **SURE)
    assert "Now on the plan small: 2. So already: 1." in told
    assert "Left as it was, south" in told
    assert limits.of(globex.tenant).max_mailboxes == 1


def test_so_many_at_once_are_for_a_program(boss: Client, acme: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "MOST", 1)
    assert "At most 1 can be changed at once" in act(boss, Mailbox, "resume", acme.mailbox, acme.add("binh"), **SURE)


def test_chosen_rows_are_exported(boss: Client, acme: Customer, globex: Customer) -> None:
    acme.add("binh")
    values = {"action": "export_chosen", "_selected_action": [acme.mailbox.pk, globex.mailbox.pk]}
    file = boss.post(url(Mailbox, "changelist"), values).getvalue().decode("utf-8-sig")
    assert [line.split(",")[0] for line in file.splitlines()[1:]] == ["an@acme.test"]


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
    assert "Removed: sales@acme.test." in said(boss, url(Alias, "delete", alias.pk), {"post": "yes"})
    other, _ = provisioning.add_alias("other@globex.test", mailbox=globex.mailbox)
    act(boss, Alias, "delete_selected", other, post="yes")
    assert list(Alias.objects.all()) == [other]


def test_a_mailbox_is_renamed_held_and_put_into_a_state(boss: Client, acme: Customer, globex: Customer) -> None:
    path = url(Mailbox, "change", acme.mailbox.pk)
    values = {"name": "An", "external_id": "u-7", "state": "no-login", "state_reason": "left", "legal_hold": "on"}
    assert "was changed" in said(boss, path, values | {"new_address": "ann@acme.test", "pop3_enabled": "on"})
    acme.mailbox.refresh_from_db()
    assert (acme.mailbox.address, acme.mailbox.name, acme.mailbox.external_id) == ("ann@acme.test", "An", "u-7")
    assert (acme.mailbox.state, acme.mailbox.state_reason, acme.mailbox.legal_hold) == ("no-login", "left", True)
    elsewhere = said(boss, path, values | {"new_address": "an@globex.test"})
    nowhere = said(boss, path, values | {"new_address": "an@nowhere.test"})
    assert "globex.test is not hosted here" in elsewhere
    assert "nowhere.test is not hosted here" in nowhere
    provisioning.close_mailbox(acme.mailbox)
    assert "Now open: 1" in act(boss, Mailbox, "reopen", acme.mailbox, **SURE)
    event = AuditEvent.objects.latest("pk")
    boss_id = User.objects.get(email="boss@acme.test").pk
    assert (event.action, event.through, event.user_id) == ("mailbox.reopened", "admin", boss_id)


def test_a_domain_admin_holds_no_mailbox(acme: Customer) -> None:
    head = signed_in(
        provisioning.add_staff(
            "h@acme.test", password=None, tenant=acme.tenant, role="domain-admin", domains=[acme.domain]
        )
    )
    path = url(Mailbox, "change", acme.mailbox.pk)
    assert 'name="legal_hold"' not in page(head, path)
    assert "was changed" in said(head, path, {"state": "active", "legal_hold": "on", "name": "An"})
    acme.mailbox.refresh_from_db()
    assert (acme.mailbox.legal_hold, acme.mailbox.name) == (False, "An")


def test_a_domain_is_changed_closed_and_reopened(boss: Client, operator: Client, acme: Customer) -> None:
    path = url(Domain, "change", acme.domain.pk)
    assert "_mailhost.acme.test" in page(boss, path)
    assert "was changed" in said(boss, path, {"external_id": "d-1", "subaddress": "-", "max_mailboxes": "7"})
    acme.domain.refresh_from_db()
    assert (acme.domain.external_id, acme.domain.subaddress) == ("d-1", "-")
    assert limits.of(acme.domain).max_mailboxes is None
    assert "was changed" in said(operator, path, {"external_id": "d-1", "subaddress": "-", "max_mailboxes": "7"})
    assert limits.of(acme.domain).max_mailboxes == 7
    assert "Closed: acme.test." in said(boss, url(Domain, "delete", acme.domain.pk), {"post": "yes"})
    assert not Mailbox.objects.open().exists()
    assert "Now open: 1" in act(boss, Domain, "reopen", acme.domain)
    assert "was added" in said(boss, url(Domain, "add"), {"tenant": acme.tenant.pk, "name": "acme.example"})
    assert Domain.objects.get(name="acme.example").state == "pending"


# --- What is shown once --------------------------------------------------------------------------------------------


def test_an_app_password_is_shown_once_and_revoked(boss: Client, acme: Customer, globex: Customer) -> None:
    values = {"mailbox": acme.mailbox.pk, "name": "phone", "scopes": ["pop3"], "allowed_networks": "192.0.2.0/24"}
    shown = said(boss, url(AppPassword, "add"), values)
    [text] = re.findall(r'id="shown-once"[^>]*>([^<]+)<', shown)
    made = AppPassword.objects.get()
    assert bytes(made.digest) == app_passwords.digest(text)
    assert made.allowed_networks == ["192.0.2.0/24"]
    for path in (url(AppPassword, "changelist"), url(AppPassword, "change", made.pk)):
        assert text not in page(boss, path)
    theirs = said(boss, url(AppPassword, "add"), values | {"mailbox": globex.mailbox.pk})
    assert "not one of the available choices" in theirs
    assert "is not a network" in said(boss, url(AppPassword, "add"), values | {"allowed_networks": "home"})
    assert "Revoked: phone." in said(boss, url(AppPassword, "delete", made.pk), {"post": "yes"})
    made.refresh_from_db()
    assert made.revoked_at


def test_an_app_password_is_changed(boss: Client, acme: Customer, globex: Customer) -> None:
    mine, _ = app_passwords.create(acme.mailbox, name="phone")
    theirs, _ = app_passwords.create(globex.mailbox, name="theirs")
    values = {
        "name": "Old phone", "scopes": ["pop3", "self"], "allowed_networks": "192.0.2.0/24", "own_copy": "on",
        "expires_at_0": "2099-01-02", "expires_at_1": "03:04:05",
    }  # fmt: skip
    assert "and another device still gets it" in page(boss, url(AppPassword, "change", mine.pk))
    said(boss, url(AppPassword, "change", mine.pk), values)
    mine.refresh_from_db()
    assert (mine.name, mine.scopes, mine.own_copy) == ("Old phone", ["pop3", "self"], True)
    assert (mine.allowed_networks, mine.expires_at and mine.expires_at.year) == (["192.0.2.0/24"], 2099)
    assert mine.mailbox == acme.mailbox
    told = AuditEvent.objects.get(action="app-password.changed")
    assert (told.through, told.changes["own_copy"]) == ("admin", [False, True])
    refused = said(boss, url(AppPassword, "change", mine.pk), values | {"scopes": ["self"]})
    assert "an own copy is for a device that fetches mail" in refused
    assert boss.post(url(AppPassword, "change", theirs.pk), values).status_code == 302
    theirs.refresh_from_db()
    assert theirs.name == "theirs"
    app_passwords.revoke(mine)
    assert 'name="_save"' not in page(boss, url(AppPassword, "change", mine.pk))


@pytest.mark.parametrize("days", ["30", ""])
def test_a_keep_time_is_said_in_days(boss: Client, acme: Customer, days: str) -> None:
    for row, values in ((acme.tenant, {"name": "Acme"}), (acme.mailbox, {"state": "active"})):
        path = url(type(row), "change", row.pk)
        assert "is from 1 to 36500 whole days" in said(boss, path, values | {"keep_time": "40000"})
        assert "Say a number of days" in said(boss, path, values | {"keep_time": "soon"})
        said(boss, path, values | {"keep_time": days})
        row.refresh_from_db()
        assert row.keep_time == (timedelta(days=30) if days else None)


def test_a_token_is_shown_once_and_no_stronger_than_its_maker(boss: Client, acme: Customer, globex: Customer) -> None:
    values = {"name": "billing", "role": "tenant-admin", "scopes": "mailboxes:read", "requests_per_minute": "60"}
    shown = said(boss, url(ApiToken, "add"), values | {"tenant": globex.tenant.pk})
    [text] = re.findall(r'id="shown-once"[^>]*>([^<]+)<', shown)
    token = ApiToken.objects.get()
    assert tokens.is_text_of(token, text)
    assert (token.tenant, token.scopes) == (acme.tenant, ["mailboxes:read"])
    assert "not one of the available choices" in said(boss, url(ApiToken, "add"), values | {"role": "operator"})
    assert "has no scope" in said(boss, url(ApiToken, "add"), values | {"scopes": "resellers:write"})
    assert "choose everything that the role may" in said(boss, url(ApiToken, "add"), values | {"scopes": ""})
    assert "not both" in said(boss, url(ApiToken, "add"), values | {"everything": "on"})
    assert "This field is required" in said(boss, url(ApiToken, "add"), values | {"role": ""})
    assert '<option value="" selected>' in page(boss, url(ApiToken, "add"))
    act(boss, ApiToken, "delete_selected", token, post="yes")
    token.refresh_from_db()
    assert token.revoked_at
    said(boss, url(ApiToken, "add"), values | {"scopes": "", "everything": "on"})
    assert set(ApiToken.objects.latest("pk").scopes) == permissions.scopes_of("tenant-admin")


def test_a_webhook_s_secret_is_shown_once_and_what_was_sent_is_sent_again(
    rows: "Rows", boss: Client, acme: Customer, globex: Customer
) -> None:
    shown = said(boss, url(Webhook, "add"), {"url": "https://hooks.example/", "events": ["mailbox.created"]})
    [secret] = re.findall(r'id="shown-once"[^>]*>([^<]+)<', shown)
    webhook = Webhook.objects.get(url="https://hooks.example/")
    assert (webhook.tenant, webhook.secret, webhook.events) == (acme.tenant, secret, ["mailbox.created"])
    assert "begins with https" in said(boss, url(Webhook, "add"), {"url": "http://hooks.example/"})
    assert secret not in page(boss, url(Webhook, "change", webhook.pk))
    assert "was changed" in said(boss, url(Webhook, "change", webhook.pk), {"url": "https://hooks.example/2"})
    webhook.refresh_from_db()
    assert (webhook.enabled, webhook.events) == (False, [])
    [again] = re.findall(r'id="shown-once"[^>]*>([^<]+)<', act(boss, Webhook, "rotate", webhook))
    assert again != secret
    ours, theirs = (rows[WebhookDelivery][slug] for slug in ("acme", "globex"))
    WebhookDelivery.objects.update(state="failed")
    assert "To be sent again: 1." in act(boss, WebhookDelivery, "replay", ours, theirs)
    assert set(WebhookDelivery.objects.filter(state="pending")) == {ours}
    assert "Removed" in said(boss, url(Webhook, "delete", webhook.pk), {"post": "yes"})


# --- CSV -----------------------------------------------------------------------------------------------------------


def test_a_file_is_looked_at_first_and_then_imported(boss: Client, acme: Customer, globex: Customer) -> None:
    path = reverse("admin:accounts_mailbox_import")
    text = "address;password;quota\r\nbinh@acme.test;secret;10M\r\nan@acme.test;;5M\r\n"
    shown = said(boss, path, {"file": upload(text)})
    assert "It would be: 1 added, 0 changed, 1 left as they are." in shown
    assert Mailbox.objects.count() == 2
    [content] = re.findall(r'name="content" value="([^"]+)"', shown)
    values = {"content": content, "apply": "Import", "update": "on"}
    assert "Imported: 1 added, 1 changed, 0 left as they are." in said(boss, path, values)
    assert authenticate(username="binh@acme.test", password="secret")
    bad = said(boss, path, {"file": upload("address,quota\nx@globex.test,much\ny@globex.test,1M\n")})
    assert "Nothing can be done" in bad
    assert "globex.test is not hosted here" in bad
    assert 'name="content"' not in bad
    assert "choose a file" in said(boss, path, {"apply": "Import"})
    assert "send the file again" in said(boss, path, {"apply": "Import", "content": "x"})
    assert "no column" in said(boss, path, {"file": upload("address,nonsense\n")})
    many = "".join(f"u{number}@acme.test,secret\n" for number in range(2001))
    assert "at most 2000 passwords" in said(boss, path, {"file": upload(many)})
    assert "more than 1 MB" in said(boss, path, {"file": upload("x" * (2**20 + 1))})
    aliases = reverse("admin:accounts_alias_import")
    shown = said(boss, aliases, {"file": upload("address,targets\nsales@acme.test,an@acme.test\n")})
    [content] = re.findall(r'name="content" value="([^"]+)"', shown)
    assert "Imported: 1 added" in said(boss, aliases, {"content": content, "apply": "Import"})
