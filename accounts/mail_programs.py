"""What a mail program must know to fetch a mailbox's mail: the servers, and the same as an Apple profile."""

import plistlib
import uuid
from dataclasses import dataclass
from typing import Any

from django.conf import settings


@dataclass(frozen=True)
class Servers:
    """Where mail programs connect to, as the settings say."""

    host: str
    pop3s_port: int  # TLS from the start
    pop3_port: int  # STLS
    smtp: Any  # host and port of a server for sending, with TLS from the start; None if nobody is told of one


def servers() -> Servers:
    """For edges."""
    return Servers(
        host=settings.MAILHOST_PUBLIC_NAME,
        pop3s_port=settings.MAILHOST_PUBLIC_POP3S,
        pop3_port=settings.MAILHOST_PUBLIC_POP3,
        smtp=settings.MAILHOST_PUBLIC_SMTP,
    )


def apple_profile(servers: Servers, *, address: str, name: str, password: str) -> bytes:
    """A `.mobileconfig` that sets Apple Mail up (com.apple.mail.managed). Unsigned, with the password in it.

    Apple wants a server for sending in every one: without one of ours it names the host, which refuses.
    """
    account = {
        "PayloadType": "com.apple.mail.managed",
        "PayloadVersion": 1,
        "PayloadIdentifier": f"{servers.host}.pop3.{address}",
        "PayloadUUID": _uuid(servers, address, "account"),
        "PayloadDisplayName": address,
        "EmailAccountDescription": address,
        "EmailAccountName": name or address,
        "EmailAccountType": "EmailTypePOP",
        "EmailAddress": address,
        "IncomingMailServerAuthentication": "EmailAuthPassword",
        "IncomingMailServerHostName": servers.host,
        "IncomingMailServerPortNumber": servers.pop3s_port,
        "IncomingMailServerUseSSL": True,
        "IncomingMailServerUsername": address,
        "IncomingPassword": password,
        "OutgoingMailServerAuthentication": "EmailAuthPassword" if servers.smtp else "EmailAuthNone",
        "OutgoingMailServerHostName": servers.smtp.host if servers.smtp else servers.host,
        "OutgoingMailServerUseSSL": True,
    }
    if servers.smtp:
        account |= {
            "OutgoingMailServerPortNumber": servers.smtp.port,
            "OutgoingMailServerUsername": address,
            "OutgoingPasswordSameAsIncomingPassword": False,
        }
    profile = {
        "PayloadType": "Configuration",
        "PayloadVersion": 1,
        "PayloadIdentifier": f"{servers.host}.{address}",
        "PayloadUUID": _uuid(servers, address, "profile"),
        "PayloadDisplayName": address,
        "PayloadDescription": f"Sets Mail up to fetch the mail of {address}.",
        "PayloadOrganization": servers.host,
        "PayloadRemovalDisallowed": False,
        "PayloadContent": [account],
    }
    return plistlib.dumps(profile)


def _uuid(servers: Servers, address: str, what: str) -> str:
    """The same each time: another profile for an address takes the place of the one that is there."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"pop://{address}@{servers.host}/{what}")).upper()
