"""Plans: made, changed with the limits of all who have them, and moved to."""

from typing import Any, TypedDict, Unpack

from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from accounts import audit, limits
from accounts.models import Plan, Reseller, Tenant
from accounts.provisioning import happened, values
from accounts.provisioning.refusals import BadValue, StillInUse, UnknownPlan, UnknownTenant


class PlanValues(TypedDict, total=False):
    """What of a plan can be changed. None is no limit; octets are of all mail together."""

    name: str
    max_domains: int | None
    max_mailboxes: int | None
    max_aliases: int | None
    max_octets: int | None


def add_plan(slug: str, *, reseller: Reseller | None = None, **given: Unpack[PlanValues]) -> tuple[Plan, bool]:
    """A plan, called `name` or after its slug; an existing one stays as it is. Raises `BadValue`, `Taken`."""
    wanted = _checked({"name": given.get("name") or values.slug(slug), **given})
    with transaction.atomic():
        if found := Plan.objects.filter(slug=values.slug(slug), reseller=reseller).first():
            return found, False
        try:
            with transaction.atomic():
                plan = Plan.objects.create(slug=slug, reseller=reseller, **wanted)
        except IntegrityError as error:
            raise values.taken(error) from None
        audit.record("plan.created", plan)
    return plan, True


def change_plan(plan: Plan, **given: Unpack[PlanValues]) -> bool:
    """Give a plan these values, and its limits to every tenant that has it; whether any is new.

    A limit below what a tenant has takes nothing away. Raises `UnknownPlan`, `BadValue`.
    """
    wanted = _checked(dict(given))
    with transaction.atomic():
        row = Plan.objects.select_for_update(no_key=True).filter(pk=plan.pk).first()
        if row is None:
            raise UnknownPlan(_("%(plan)s was removed") % {"plan": plan})
        if changes := values.changed(row, wanted):
            values.write(Plan.objects.filter(pk=row.pk), changes)
            audit.record("plan.changed", plan, changes)
            if limited := {name: after for name, (_before, after) in changes.items() if name in limits.FIELDS}:
                for tenant in Tenant.objects.filter(plan=row).order_by("pk"):
                    limits.set_limits(tenant, **limited)
    plan.refresh_from_db()
    return bool(changes)


def remove_plan(plan: Plan) -> None:
    """Remove a plan that no tenant has any more. Raises `StillInUse`."""
    with transaction.atomic():
        Plan.objects.select_for_update().filter(pk=plan.pk).first()
        if Tenant.objects.filter(plan=plan).exists():
            raise StillInUse(_("%(plan)s has tenants: move them to another plan first") % {"plan": plan})
        audit.record("plan.removed", plan)
        Plan.objects.filter(pk=plan.pk).delete()


def move_to_plan(tenant: Tenant, plan: Plan | None) -> bool:
    """Give a tenant a plan with its limits; with None it has no plan, and its limits stay. Whether any of that is new.

    Raises `UnknownTenant`, `UnknownPlan`, and `BadValue` for a plan of another reseller.
    """
    with transaction.atomic():
        # The plan before the tenant, as `change_plan` does: neither changes until the limits are given.
        row = Plan.objects.select_for_update(no_key=True).filter(pk=plan.pk).first() if plan else None
        if plan is not None and row is None:
            raise UnknownPlan(_("%(plan)s was removed") % {"plan": plan})
        found = Tenant.objects.select_for_update(no_key=True, of=("self",)).select_related("plan")
        before = found.filter(pk=tenant.pk).first()
        if before is None:
            raise UnknownTenant(_("%(tenant)s was removed") % {"tenant": tenant})
        if row is not None and row.reseller_id != before.reseller_id:
            raise BadValue(_("%(plan)s is not a plan for %(tenant)s") % {"plan": row, "tenant": tenant}, field="plan")
        if changes := values.changed(before, {"plan": row}):
            values.write(Tenant.objects.filter(pk=tenant.pk), changes)
            happened.to_tenant("changed", tenant, {"plan": (_slug(before.plan), _slug(row))})
        limited = {}
        if row is not None:
            limited = limits.set_limits(tenant, **{name: getattr(row, name) for name in limits.FIELDS})
    tenant.refresh_from_db()
    return bool(changes or limited)


def _slug(plan: Plan | None) -> str | None:
    return plan.slug if plan else None


def _checked(given: dict[str, Any]) -> dict[str, Any]:
    if "name" in given:
        given["name"] = values.name(given["name"], of="plan")
    for name in limits.FIELDS:
        if name in given and given[name] is not None and not 0 <= given[name] <= limits.MOST:
            text = _("%(name)s is from 0 to %(most)s")
            raise BadValue(text % {"name": name, "most": limits.MOST}, field=name)
    return given
