"""Why something cannot be done: the words of provisioning, turned into an answer once per edge."""

from typing import Final

from accounts.addresses import BadAddress
from accounts.hashes import BadHash
from accounts.limits import LimitReached
from accounts.passwords import BadPassword


class Refused(Exception):
    """It cannot be done; the text says why."""


class UnknownReseller(Refused):
    """There is no such reseller."""


class UnknownPlan(Refused):
    """There is no such plan."""


class UnknownTenant(Refused):
    """There is no such tenant."""


class UnknownDomain(Refused):
    """The domain is not hosted here, or not the tenant's."""


class UnknownMailbox(Refused):
    """No open mailbox has that address."""


class Taken(Refused):
    """The name, or the caller's own id, is somebody's already."""


class DomainTaken(Taken):
    """The domain is another tenant's."""


class AddressTaken(Taken):
    """The address is somebody's already."""


class InQuarantine(Refused):
    """The address was a closed mailbox's that is not purged yet: its mail is not to reach somebody else."""


class OtherTenant(Refused):
    """The two belong to different tenants."""


class OwnsMailbox(Refused):
    """What this login may do follows from its mailbox."""


class NotAllowed(Refused):
    """Whoever asks may do that to others, and not to this one."""


class StillInUse(Refused):
    """Something else depends on it."""


class OnHold(Refused):
    """Its mail must be kept, by law."""


class BadValue(Refused):
    """A value that cannot be stored, or would do harm."""

    def __init__(self, text: str, *, field: str = "") -> None:
        super().__init__(text)
        self.field = field


REFUSALS: Final = (Refused, LimitReached, BadAddress, BadPassword, BadHash)
"""All that is raised here for what was asked; the text of each is a sentence without its full stop."""
