"""Writing who has mail: every change to tenants, domains, logins, mailboxes and aliases is a function here.

Each owns its transaction, its check and its record, and can be repeated: what adds something returns it together
with whether it is new. Addresses come in any spelling. What cannot be done is raised as one of `REFUSALS`, with a
sentence for whoever asked. Who asked stands in `accounts.principals.acting`; whether he may is asked before.

An address is one mailbox's, one alias's or one login's. No constraint spans three tables, so whoever gives an
address away holds its domain's row meanwhile. Locks are taken in this order: domain, mailbox, tenant, allowance.
"""

from accounts.provisioning.aliases import add_alias, remove_alias, set_alias, targets_of
from accounts.provisioning.domains import add_domain, change_domain, close_domain, reopen_domain
from accounts.provisioning.logins import add_staff, change_login, remove_login, set_language, set_password, set_role
from accounts.provisioning.lookups import (
    find_domain,
    find_last_mailbox,
    find_mailbox,
    find_reseller,
    find_tenant,
)
from accounts.provisioning.mailboxes import (
    add_mailbox,
    change_mailbox,
    close_mailbox,
    rename_mailbox,
    reopen_mailbox,
    reopenable,
    resume,
    set_legal_hold,
    set_state,
    suspend,
)
from accounts.provisioning.plans import add_plan, change_plan, move_to_plan, remove_plan
from accounts.provisioning.refusals import (
    REFUSALS,
    AddressTaken,
    BadValue,
    DomainTaken,
    InQuarantine,
    NotAllowed,
    OnHold,
    OtherTenant,
    OwnsMailbox,
    Refused,
    StillInUse,
    Taken,
    UnknownDomain,
    UnknownMailbox,
    UnknownPlan,
    UnknownReseller,
    UnknownTenant,
)
from accounts.provisioning.tenants import (
    add_reseller,
    add_tenant,
    change_reseller,
    change_tenant,
    close_tenant,
    remove_reseller,
)

__all__ = [
    "REFUSALS",
    "AddressTaken",
    "BadValue",
    "DomainTaken",
    "InQuarantine",
    "NotAllowed",
    "OnHold",
    "OtherTenant",
    "OwnsMailbox",
    "Refused",
    "StillInUse",
    "Taken",
    "UnknownDomain",
    "UnknownMailbox",
    "UnknownPlan",
    "UnknownReseller",
    "UnknownTenant",
    "add_alias",
    "add_domain",
    "add_mailbox",
    "add_plan",
    "add_reseller",
    "add_staff",
    "add_tenant",
    "change_domain",
    "change_login",
    "change_mailbox",
    "change_plan",
    "change_reseller",
    "change_tenant",
    "close_domain",
    "close_mailbox",
    "close_tenant",
    "find_domain",
    "find_last_mailbox",
    "find_mailbox",
    "find_reseller",
    "find_tenant",
    "move_to_plan",
    "remove_alias",
    "remove_login",
    "remove_plan",
    "remove_reseller",
    "rename_mailbox",
    "reopen_domain",
    "reopen_mailbox",
    "reopenable",
    "resume",
    "set_alias",
    "set_language",
    "set_legal_hold",
    "set_password",
    "set_role",
    "set_state",
    "suspend",
    "targets_of",
]
