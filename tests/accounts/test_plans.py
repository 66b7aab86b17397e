"""Plans: what tenants may have, under a name."""

import pytest
from django.db import connection, transaction

from accounts import limits, provisioning
from accounts.models import AuditEvent, Plan, Reseller, Tenant
from accounts.provisioning import BadValue, StillInUse, Taken, UnknownPlan
from tests.fixtures import Customer

pytestmark = pytest.mark.django_db


@pytest.fixture
def small() -> Plan:
    return provisioning.add_plan("small", name="Small", max_mailboxes=2, max_octets=10_000)[0]


def limits_of(tenant: Tenant) -> tuple[int | None, int | None]:
    allowance = limits.of(tenant)
    return allowance.max_mailboxes, allowance.max_octets


def test_a_tenant_gets_the_limits_of_its_plan(small: Plan, acme: Customer, globex: Customer) -> None:
    limits.set_limits(acme.tenant, max_aliases=3)
    assert provisioning.move_to_plan(acme.tenant, small)
    assert acme.tenant.plan == small
    assert limits_of(acme.tenant) == (2, 10_000)
    assert limits.of(acme.tenant).max_aliases is None
    assert limits_of(globex.tenant) == (None, None)
    acme.add("binh")
    with pytest.raises(limits.LimitReached):
        acme.add("chi")
    assert AuditEvent.objects.filter(action="tenant.changed", changes={"plan": [None, "small"]}).count() == 1
    assert not provisioning.move_to_plan(acme.tenant, small)


def test_a_changed_plan_is_changed_for_all_who_have_it(small: Plan, acme: Customer, globex: Customer) -> None:
    provisioning.move_to_plan(acme.tenant, small)
    assert provisioning.change_plan(small, max_mailboxes=5)
    assert not provisioning.change_plan(small, max_mailboxes=5)
    assert limits_of(acme.tenant) == (5, 10_000)
    assert limits_of(globex.tenant) == (None, None)


def test_who_leaves_a_plan_keeps_its_limits(small: Plan, acme: Customer) -> None:
    provisioning.move_to_plan(acme.tenant, small)
    assert provisioning.move_to_plan(acme.tenant, None)
    provisioning.change_plan(small, max_mailboxes=9)
    assert acme.tenant.plan is None
    assert limits_of(acme.tenant) == (2, 10_000)


def test_a_plan_goes_when_nobody_has_it(small: Plan, acme: Customer) -> None:
    provisioning.move_to_plan(acme.tenant, small)
    with pytest.raises(StillInUse):
        provisioning.remove_plan(small)
    provisioning.move_to_plan(acme.tenant, None)
    provisioning.remove_plan(small)
    with pytest.raises(UnknownPlan):
        provisioning.change_plan(small, name="x")
    with pytest.raises(UnknownPlan):
        provisioning.move_to_plan(acme.tenant, small)


def test_a_reseller_s_plans_are_for_its_tenants(small: Plan, acme: Customer) -> None:
    north = provisioning.add_reseller("north")[0]
    theirs, added = provisioning.add_plan("small", reseller=north, max_mailboxes=1)
    assert added
    assert theirs != small
    with pytest.raises(BadValue):
        provisioning.move_to_plan(acme.tenant, theirs)
    provisioning.move_to_plan(acme.tenant, small)
    provisioning.change_tenant(acme.tenant, reseller=north)
    assert acme.tenant.plan is None
    assert limits_of(acme.tenant) == (2, 10_000)
    provisioning.move_to_plan(acme.tenant, theirs)
    assert limits_of(acme.tenant) == (1, None)


def test_a_plan_is_there_once_and_has_numbers_that_can_be(small: Plan) -> None:
    assert provisioning.add_plan("small", max_mailboxes=9) == (small, False)
    for value in (-1, 2**63):
        with pytest.raises(BadValue) as refused:
            provisioning.change_plan(small, max_aliases=value)
        assert refused.value.field == "max_aliases"
    with pytest.raises(BadValue):
        provisioning.add_plan("No slug")
    with pytest.raises(Taken), transaction.atomic():
        provisioning.values.write(Plan.objects.filter(pk=provisioning.add_plan("big")[0].pk), {"slug": ("", "small")})


@pytest.mark.parametrize("whose", ["host", "reseller", "tenant"])
def test_the_database_shows_a_plan_to_whose_it_is(small: Plan, acme: Customer, whose: str) -> None:
    north, south = (provisioning.add_reseller(slug)[0] for slug in ("north", "south"))
    for reseller in (north, south):
        provisioning.add_plan("theirs", reseller=reseller)
    settings = {
        "host": ("on", "", "", 3),
        "reseller": ("", str(north.pk), "", 1),
        "tenant": ("", "", f"{{{acme.tenant.pk}}}", 0),
    }
    host, seller, tenants, seen = settings[whose]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL ROLE mailhost_web")
        for name, value in (("host", host), ("reseller", seller), ("tenants", tenants)):
            cursor.execute("SELECT set_config(%s, %s, true)", (f"mailhost.{name}", value))
        cursor.execute("SELECT count(*) FROM accounts_plan")
        assert cursor.fetchone() == (seen,)
        cursor.execute("UPDATE accounts_plan SET name = 'x' WHERE reseller_id = %s", (south.pk,))
        assert cursor.rowcount == (whose == "host")


def test_another_reseller_s_plan_does_not_exist(small: Plan) -> None:
    north, south = (provisioning.add_reseller(slug)[0] for slug in ("north", "south"))
    own = provisioning.add_plan("own", reseller=north)[0]
    provisioning.add_plan("other", reseller=south)
    seller = provisioning.add_staff("sales@localhost", password=None, role="reseller", reseller=north, tenant=None)
    assert list(Plan.objects.visible_to(seller)) == [own]
    assert Reseller.objects.visible_to(seller).get() == north
