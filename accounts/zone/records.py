"""The records that a hosted domain should have in DNS, each with the value to copy and why."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from django.conf import settings
from django.utils.translation import gettext as _

from accounts import clients, verification
from accounts.models import Domain

_TTL: Final = 3600  # seconds


class Need(StrEnum):
    """How much depends on a record."""

    REQUIRED = "required"
    RECOMMENDED = "recommended"
    OPTIONAL = "optional"


class Purpose(StrEnum):
    """What a record is for."""

    OWNERSHIP = "ownership"
    MX = "mx"
    SPF = "spf"
    DMARC = "dmarc"
    POP3S = "pop3s"
    POP3 = "pop3"
    SUBMISSIONS = "submissions"
    AUTOCONFIG = "autoconfig"
    AUTODISCOVER = "autodiscover"
    AUTODISCOVER_SRV = "autodiscover-srv"
    MTA_STS = "mta-sts"
    TLS_RPT = "tls-rpt"


class Exchanger(NamedTuple):
    """An MTA that takes the mail of hosted domains (RFC 5321 section 5)."""

    preference: int
    name: str


@dataclass(frozen=True, kw_only=True)
class Host:
    """What domains are told of this host, as the settings say. Names are in normal form."""

    name: str
    """Where mail programs connect to."""
    web: str
    """Where its web is, by https."""
    exchangers: tuple[Exchanger, ...]
    pop3s_port: int
    pop3_port: int
    smtp: tuple[str, int] | None
    """A server for sending, with TLS from the start, if there is one."""
    spf: str
    """What stands in SPF records for whoever sends the domains' mail: `include:x`; empty if nobody does."""

    @property
    def is_public(self) -> bool:
        """Whether its names can be found in public DNS; else the values are of no use yet."""
        return all("." in name and clients.parsed(name) is None for name in (self.name, self.web))


@dataclass(frozen=True, kw_only=True)
class Hosted:
    """A domain, as far as its records depend on it: to be asked about without the database."""

    name: str
    alias_of: str
    ownership: tuple[str, str]
    """Name and text of the record that shows whose it is."""
    is_trusted: bool

    @classmethod
    def of(cls, domain: Domain) -> "Hosted":
        """The domain of this row."""
        return cls(
            name=domain.name,
            alias_of=str(domain.alias_of or ""),
            ownership=verification.record(domain),
            is_trusted=verification.is_trusted(domain),
        )


@dataclass(frozen=True, kw_only=True)
class Record:
    """A set of records of one name and type."""

    purpose: Purpose
    title: str
    name: str
    kind: str
    values: tuple[str, ...]
    """What stands in each: of TXT the text itself, of others the data as a zone file has it."""
    need: Need
    why: str
    is_pasted: bool = True
    """Whether it does no harm to publish it unread."""


def records(hosted: Hosted, host: Host) -> list[Record]:
    """What the domain should have, in the order of what depends on it."""
    return list(_records(hosted, host))


def _records(hosted: Hosted, host: Host) -> Iterator[Record]:
    name = hosted.name
    yield Record(
        purpose=Purpose.OWNERSHIP,
        title=_("Whose it is"),
        name=hosted.ownership[0],
        kind="TXT",
        values=(hosted.ownership[1],),
        need=Need.OPTIONAL if hosted.is_trusted else Need.REQUIRED,
        why=_("The host's operator has vouched for the domain: it needs no record.")
        if hosted.is_trusted
        else _("Shows that the domain is yours. It must stay: it is looked at every day."),
    )
    yield Record(
        purpose=Purpose.MX,
        title=_("Where its mail goes"),
        name=name,
        kind="MX",
        values=tuple(f"{preference} {exchanger}." for preference, exchanger in host.exchangers),
        need=Need.REQUIRED,
        why=_("Other mail servers deliver mail for the domain there."),
    )
    yield Record(
        purpose=Purpose.SPF,
        title=_("Who may send for it (SPF)"),
        name=name,
        kind="TXT",
        values=(f"v=spf1 {host.spf} ~all" if host.spf else "v=spf1 -all",),
        need=Need.RECOMMENDED if host.spf else Need.OPTIONAL,
        why=_("Without it, mail from the domain is often taken for spam. A domain has one such record.")
        if host.spf
        else _(
            "No mail is sent through this host. This value is for a domain that sends none at all; whoever sends its "
            "mail says what must stand here instead."
        ),
        is_pasted=bool(host.spf),
    )
    yield Record(
        purpose=Purpose.DMARC,
        title=_("What becomes of forged mail (DMARC)"),
        name=f"_dmarc.{name}",
        kind="TXT",
        values=(f"v=DMARC1; p=none; rua=mailto:postmaster@{name}",),
        need=Need.RECOMMENDED,
        why=_(
            "Large receivers ask for it. p=none changes nothing and has reports sent to the address after rua=, which "
            "somebody should read; later p=quarantine or p=reject stops forgeries."
        ),
    )
    yield Record(
        purpose=Purpose.POP3S,
        title=_("Where mail programs fetch mail"),
        name=f"_pop3s._tcp.{name}",
        kind="SRV",
        values=(f"0 0 {host.pop3s_port} {host.name}.",),
        need=Need.RECOMMENDED,
        why=_("Mail programs find the server from the address alone (RFC 6186)."),
    )
    yield Record(
        purpose=Purpose.POP3,
        title=_("No POP3 that begins in clear"),
        name=f"_pop3._tcp.{name}",
        kind="SRV",
        values=("0 0 0 .",),
        need=Need.OPTIONAL,
        why=_("The dot says that there is none, so that mail programs begin with TLS (RFC 6186, RFC 8314)."),
    )
    if host.smtp:
        yield Record(
            purpose=Purpose.SUBMISSIONS,
            title=_("Where mail programs send mail"),
            name=f"_submissions._tcp.{name}",
            kind="SRV",
            values=(f"0 0 {host.smtp[1]} {host.smtp[0]}.",),
            need=Need.RECOMMENDED,
            why=_("Mail programs find the server for sending from the address alone (RFC 8314)."),
        )
    yield Record(
        purpose=Purpose.AUTOCONFIG,
        title=_("Thunderbird sets itself up"),
        name=f"autoconfig.{name}",
        kind="CNAME",
        values=(f"{host.web}.",),
        need=Need.RECOMMENDED,
        why=_("Thunderbird, and programs that ask as it does, find their settings there."),
    )
    yield Record(
        purpose=Purpose.AUTODISCOVER_SRV,
        title=_("Outlook sets itself up"),
        name=f"_autodiscover._tcp.{name}",
        kind="SRV",
        values=(f"0 0 443 {host.web}.",),
        need=Need.RECOMMENDED,
        why=_("Outlook finds its settings there, and needs no certificate for the domain."),
    )
    yield Record(
        purpose=Purpose.AUTODISCOVER,
        title=_("Outlook sets itself up, the older way"),
        name=f"autodiscover.{name}",
        kind="CNAME",
        values=(f"{host.web}.",),
        need=Need.OPTIONAL,
        why=_("For versions that do not ask for SRV records. It needs a certificate for this name."),
    )
    yield Record(
        purpose=Purpose.MTA_STS,
        title=_("Mail comes by TLS alone (MTA-STS)"),
        name=f"_mta-sts.{name}",
        kind="TXT",
        values=("v=STSv1; id=1",),
        need=Need.OPTIONAL,
        why=_(
            "Makes senders insist on TLS. It needs a web server of yours, mta-sts.%(domain)s with a certificate, that "
            "serves the policy below; this host does not serve it. The id changes whenever the policy does (RFC 8461)."
        )
        % {"domain": name},
        is_pasted=False,
    )
    yield Record(
        purpose=Purpose.TLS_RPT,
        title=_("Reports about TLS (TLS-RPT)"),
        name=f"_smtp._tls.{name}",
        kind="TXT",
        values=(f"v=TLSRPTv1; rua=mailto:postmaster@{name}",),
        need=Need.OPTIONAL,
        why=_("Senders report daily where TLS failed, to the address after rua= (RFC 8460)."),
    )


def sts_policy(host: Host) -> str:
    """The policy file of MTA-STS, at `/.well-known/mta-sts.txt` of the policy's host (RFC 8461 section 3.2).

    It is to be tried first: in this mode senders report, and deliver all the same.
    """
    names = [f"mx: {exchanger.name}" for exchanger in host.exchangers]
    return "\n".join(["version: STSv1", "mode: testing", *names, "max_age: 604800", ""])


def dkim_note(host: Host) -> str:
    """Who signs the domain's mail: not we."""
    if host.smtp:
        return _(
            "This host signs no mail. Whoever runs %(server)s, through which mail is sent, signs it and says which "
            "record belongs below _domainkey.your-domain."
        ) % {"server": host.smtp[0]}
    return _(
        "This host neither sends nor signs mail. Whoever sends the domain's mail signs it, and says which record "
        "belongs below _domainkey.your-domain."
    )


def zone_file(found: Iterable[Record], instead: Mapping[Purpose, str]) -> str:
    """The records as lines for a zone file (RFC 1035 section 5.1), to be pasted at once.

    Where there is a record that has to be changed, `instead` says into what: such a line says so.
    """
    lines = []
    for record in found:
        if not record.is_pasted:
            continue
        for value in [instead[record.purpose]] if record.purpose in instead else record.values:
            if record.purpose in instead:
                lines.append("; " + _("in place of the one that is there:"))
            data = quoted(value) if record.kind == "TXT" else value
            lines.append(f"{record.name}. {_TTL} IN {record.kind} {data}")
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """A text as the data of a TXT record in a zone file: strings of at most 255 octets (RFC 1035 section 3.3.14)."""
    pieces = [text[start : start + 255] for start in range(0, len(text), 255)] or [""]
    return " ".join('"' + piece.replace("\\", "\\\\").replace('"', '\\"') + '"' for piece in pieces)


def this_host() -> Host:
    """This host, as the settings say. For edges."""
    smtp = settings.MAILHOST_PUBLIC_SMTP
    name = settings.MAILHOST_PUBLIC_NAME.lower()
    if settings.MAILHOST_SPF_INCLUDE:
        spf = f"include:{settings.MAILHOST_SPF_INCLUDE}"
    else:
        spf = f"a:{smtp.host}" if smtp else ""
    return Host(
        name=name,
        web=urlsplit(settings.MAILHOST_PUBLIC_URL or "").hostname or name,
        exchangers=tuple(Exchanger(*one) for one in settings.MAILHOST_PUBLIC_MX) or (Exchanger(10, name),),
        pop3s_port=settings.MAILHOST_PUBLIC_POP3S,
        pop3_port=settings.MAILHOST_PUBLIC_POP3,
        smtp=(smtp.host, smtp.port) if smtp else None,
        spf=spf,
    )
