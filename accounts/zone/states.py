"""What DNS has of a domain's records: for each whether it is right, or what is wrong with it and how to mend it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from django.utils.translation import gettext as _

from accounts.zone import asking, spf, tags
from accounts.zone.asking import Answer, Answers, Outcome, Question
from accounts.zone.records import Exchanger, Host, Hosted, Purpose, Record
from accounts.zone.tags import BadTags

_MOST_PARENTS: Final = 4  # names above the domain at which a DMARC policy is looked for


class Verdict(StrEnum):
    """How a record is."""

    RIGHT = "right"
    WRONG = "wrong"
    MISSING = "missing"
    NO_ANSWER = "no-answer"  # it may be right or wrong: DNS does not say


@dataclass(frozen=True, kw_only=True)
class State:
    """How a record is, in DNS, now."""

    verdict: Verdict
    said: str
    """In a sentence or two, for people."""
    found: tuple[str, ...] = ()
    """What stands there: names that it leads over, and texts or data as a zone file has them."""
    instead: str = ""
    """What the record that is there should become, where it is neither right nor to be replaced by the usual value."""


def look(found: Iterable[Record], hosted: Hosted, host: Host, servers: asking.Servers) -> dict[Purpose, State]:
    """Ask DNS for all of these records at once, within `asking.LIFETIME`. Never raises for what DNS says."""
    found = list(found)
    return judge(found, hosted, host, asking.ask(questions(found, hosted, host), servers))


def questions(found: Iterable[Record], hosted: Hosted, host: Host) -> set[Question]:
    """What DNS has to be asked for to judge these records."""
    asked = {Question(record.name, record.kind) for record in found if record.kind != "CNAME"}
    led = {record.name for record in found if record.kind == "CNAME"} | {host.web, _sts_host(hosted)}
    asked |= {Question(name, kind) for name in led for kind in ("A", "AAAA")}
    asked |= {Question(f"_dmarc.{name}", "TXT") for name in _parents(hosted.name)}
    return asked | {Question(hosted.name, "TXT")}


def judge(found: Iterable[Record], hosted: Hosted, host: Host, answers: Answers) -> dict[Purpose, State]:
    """What the answers to these `questions` mean."""
    return {
        record.purpose: _JUDGES[record.purpose](_Case(record=record, hosted=hosted, host=host, answers=answers))
        for record in found
    }


@dataclass(frozen=True, kw_only=True)
class _Case:
    """What a record is judged by."""

    record: Record
    hosted: Hosted
    host: Host
    answers: Answers

    def answer(self) -> Answer:
        """What came of asking for the record itself."""
        return self.to(self.record.name, self.record.kind)

    def to(self, name: str, kind: str) -> Answer:
        return self.answers.get(Question(name, kind), asking.SILENCE)


# --- Each kind of record -------------------------------------------------------------------------------------------


def _ownership(case: _Case) -> State:
    wanted = case.record.values[0]
    answers = [case.answer(), case.to(case.hosted.name, "TXT")]
    for answer in answers:
        if wanted in (text.strip() for text in answer.texts()):
            return State(verdict=Verdict.RIGHT, said=_("The record is there."), found=(wanted,))
    for answer in answers:
        if not answer.is_certain:
            return _absent(answer)
    others = tuple(text for answer in answers for text in answer.texts() if text.startswith(wanted.partition("=")[0]))
    if others:
        return State(verdict=Verdict.WRONG, said=_("There is such a record, with another text."), found=others)
    return _absent(answers[0])


def _mx(case: _Case) -> State:
    answer = case.answer()
    if answer.outcome is not Outcome.FOUND:
        return _absent(answer)
    present = sorted(Exchanger(data.preference, asking.shown(data.exchange)) for data in answer.data)
    found = (*_led(answer), *(f"{preference} {name}" for preference, name in present))
    names, wanted = [one.name for one in present], [one.name for one in case.host.exchangers]
    if names == ["."]:
        return State(verdict=Verdict.WRONG, said=_("It says that the domain takes no mail (RFC 7505)."), found=found)
    foreign = [name for name in names if name not in wanted]
    lacking = [name for name in wanted if name not in names]
    if len(lacking) == len(wanted):
        return State(verdict=Verdict.WRONG, said=_("Mail goes elsewhere, and none comes here."), found=found)
    if foreign:
        said = _("Mail may also go to %(names)s, and then does not come here unless it is handed on from there.")
        return State(verdict=Verdict.WRONG, said=said % {"names": ", ".join(foreign)}, found=found)
    if lacking:
        said = _("Mail comes, but %(names)s is not named: it waits while the others are away.")
        return State(verdict=Verdict.WRONG, said=said % {"names": ", ".join(lacking)}, found=found)
    return State(verdict=Verdict.RIGHT, said=_("Mail for the domain comes here."), found=found)


def _spf(case: _Case) -> State:
    answer = case.answer()
    if not answer.is_certain:
        return _absent(answer)
    texts = [text for text in answer.texts() if spf.is_spf(text)]
    if not texts:
        return _none_such(answer, "SPF")
    found = tuple(texts)
    if len(texts) > 1:
        said = _("There are %(count)s SPF records, and so none holds (RFC 7208). Make one of them.")
        return State(verdict=Verdict.WRONG, said=said % {"count": len(texts)}, found=found)
    policy, wanted = spf.read(texts[0]), case.host.spf
    if policy.bad:
        said = _("No receiver understands “%(word)s”, and so the record does not hold.") % {"word": policy.bad[0][:60]}
        return State(verdict=Verdict.WRONG, said=said, found=found)
    instead = spf.merged(texts[0], wanted) if wanted and not policy.allows(wanted) else ""
    lookups = spf.read(instead).lookups if instead else policy.lookups
    said = ""
    if instead:
        said = _("Your record lacks %(mechanism)s. Change it, and add no second one.") % {"mechanism": wanted}
    elif policy.lets_anybody_send:
        said = _("The record ends with +all: it lets anybody send for the domain.")
    if lookups > spf.MOST_LOOKUPS:
        many = _("It makes receivers ask DNS %(count)s times; after ten they give up.") % {"count": lookups}
        said = f"{said} {many}".strip()
    if said:
        return State(verdict=Verdict.WRONG, said=said, found=found, instead=instead)
    said = _("The record allows what sends for the domain here.") if wanted else _("The record can be read.")
    return State(verdict=Verdict.RIGHT, said=said, found=found)


def _dmarc(case: _Case) -> State:
    answer = case.answer()
    if not answer.is_certain:
        return _absent(answer)
    texts = _beginning(answer, "v=dmarc1")
    if not texts:
        return _inherited_dmarc(case) or _none_such(answer, "DMARC")
    try:
        read = _only(texts, "DMARC", tags.check_dmarc)
    except BadTags as wrong:
        return State(verdict=Verdict.WRONG, said=f"{wrong}.", found=tuple(texts))
    said = _("The policy is %(policy)s.") % {"policy": read["p"].lower()}
    if "rua" not in read:
        said += " " + _("With rua=mailto:… somebody would get reports.")
    return State(verdict=Verdict.RIGHT, said=said, found=tuple(texts))


def _inherited_dmarc(case: _Case) -> State | None:
    """The policy of a domain above, which holds for those below (RFC 7489 section 6.6.3)."""
    for name in _parents(case.hosted.name):
        texts = _beginning(case.to(f"_dmarc.{name}", "TXT"), "v=dmarc1")
        if texts:
            said = _("The policy of %(domain)s holds here, too.") % {"domain": name}
            return State(verdict=Verdict.RIGHT, said=said, found=tuple(texts))
    return None


def _srv(case: _Case) -> State:
    answer = case.answer()
    if answer.outcome is not Outcome.FOUND:
        return _absent(answer)
    present = sorted((data.priority, data.weight, data.port, asking.shown(data.target)) for data in answer.data)
    found = (*_led(answer), *(" ".join(map(str, one)) for one in present))
    *_ignored, port, target = case.record.values[0].split(" ")
    wanted = {(int(port), target.removesuffix(".") or ".")}
    targets = {(port, name) for _priority, _weight, port, name in present}
    if case.record.purpose is Purpose.POP3:
        targets = {(0 if name == "." else port, name) for port, name in targets}
        if targets == {(case.host.pop3_port, case.host.name)}:
            said = _("It names this host's POP3 that begins in clear, and that becomes TLS by STLS. That works, too.")
            return State(verdict=Verdict.RIGHT, said=said, found=found)
    if targets == wanted:
        return State(verdict=Verdict.RIGHT, said=_("The record is right."), found=found)
    if any(name == "." for _port, name in targets):
        said = _("It says that the domain has no such service.")
    elif wanted <= targets:
        said = _("It also names other servers, which mail programs may choose.")
    elif {name for _port, name in targets} == {name for _port, name in wanted}:
        said = _("It names another port.")
    else:
        said = _("It names another server.")
    return State(verdict=Verdict.WRONG, said=said, found=found)


def _alias(case: _Case) -> State:
    """A name that leads to this host's web: by CNAME, or by having the same addresses."""
    answers = [case.to(case.record.name, kind) for kind in ("A", "AAAA")]
    chains = [answer.chain for answer in answers if answer.chain]
    if chains and case.host.web in chains[0]:
        return State(verdict=Verdict.RIGHT, said=_("It leads to this host."), found=_led_over(chains[0]))
    theirs = _addresses(answers)
    found = (*(_led_over(chains[0]) if chains else ()), *sorted(theirs))
    if theirs and theirs <= _addresses([case.to(case.host.web, kind) for kind in ("A", "AAAA")]):
        return State(verdict=Verdict.RIGHT, said=_("It has this host's addresses."), found=found)
    uncertain = [answer for answer in answers if not answer.is_certain]
    if uncertain and not chains:
        return _absent(uncertain[0])
    if not found:
        return _absent(answers[0])
    return State(verdict=Verdict.WRONG, said=_("It leads elsewhere."), found=found)


def _sts(case: _Case) -> State:
    answer, host = case.answer(), _sts_host(case.hosted)
    if not answer.is_certain:
        return _absent(answer)
    texts = _beginning(answer, "v=stsv1")
    if not texts:
        return _none_such(answer, "MTA-STS")
    try:
        _only(texts, "MTA-STS", tags.check_sts)
    except BadTags as wrong:
        return State(verdict=Verdict.WRONG, said=f"{wrong}.", found=tuple(texts))
    answers = [case.to(host, kind) for kind in ("A", "AAAA")]
    if not _addresses(answers):
        for uncertain in answers:
            if not uncertain.is_certain:
                return _absent(uncertain)
        said = _("The record is there, but %(host)s, which must serve the policy, has no address.") % {"host": host}
        return State(verdict=Verdict.WRONG, said=said, found=tuple(texts))
    said = _("The record is there, and %(host)s has an address. Whether it serves the policy is not looked at.")
    return State(verdict=Verdict.RIGHT, said=said % {"host": host}, found=tuple(texts))


def _tls_rpt(case: _Case) -> State:
    answer = case.answer()
    if not answer.is_certain:
        return _absent(answer)
    texts = _beginning(answer, "v=tlsrptv1")
    if not texts:
        return _none_such(answer, "TLS-RPT")
    try:
        _only(texts, "TLS-RPT", tags.check_tls_rpt)
    except BadTags as wrong:
        return State(verdict=Verdict.WRONG, said=f"{wrong}.", found=tuple(texts))
    return State(verdict=Verdict.RIGHT, said=_("The record is right."), found=tuple(texts))


_JUDGES: Final[dict[Purpose, Callable[[_Case], State]]] = {
    Purpose.OWNERSHIP: _ownership,
    Purpose.MX: _mx,
    Purpose.SPF: _spf,
    Purpose.DMARC: _dmarc,
    Purpose.POP3S: _srv,
    Purpose.POP3: _srv,
    Purpose.SUBMISSIONS: _srv,
    Purpose.AUTOCONFIG: _alias,
    Purpose.AUTODISCOVER: _alias,
    Purpose.AUTODISCOVER_SRV: _srv,
    Purpose.MTA_STS: _sts,
    Purpose.TLS_RPT: _tls_rpt,
}


# --- What they have in common --------------------------------------------------------------------------------------


def _absent(answer: Answer) -> State:
    """How a record is of which DNS told nothing."""
    match answer.outcome:
        case Outcome.SILENT:
            said = _("DNS did not answer within %(seconds)d seconds. That says nothing about the record: ask again.")
            return State(verdict=Verdict.NO_ANSWER, said=said % {"seconds": asking.LIFETIME})
        case Outcome.UNASKED:
            return State(
                verdict=Verdict.NO_ANSWER,
                said=_("Others are asking DNS right now, and this was not asked. Ask again in a moment."),
            )
        case Outcome.FAILED:
            how = f" ({answer.rcode})" if answer.rcode not in ("", "NOERROR") else ""
            said = _("The name servers of the domain failed to answer%(how)s. That says nothing about the record.")
            return State(verdict=Verdict.NO_ANSWER, said=said % {"how": how})
        case Outcome.NO_NAME if answer.chain:
            said = _("The name leads to %(name)s, which does not exist.") % {"name": answer.chain[-1]}
            return State(verdict=Verdict.WRONG, said=said, found=_led(answer))
        case Outcome.NO_NAME:
            return State(verdict=Verdict.MISSING, said=_("There is no such name in DNS."))
        case _:
            said = _("The name is there, but has no record of this type.")
            return State(verdict=Verdict.MISSING, said=said, found=_led(answer))


def _none_such(answer: Answer, what: str) -> State:
    """How a record is where none of the texts is one."""
    if answer.outcome is not Outcome.FOUND:
        return _absent(answer)
    said = _("The name has texts, but no record of %(what)s.") % {"what": what}
    return State(verdict=Verdict.MISSING, said=said, found=_led(answer))


def _beginning(answer: Answer, version: str) -> list[str]:
    """The texts that are meant for it, however they are spelled."""
    return [text for text in answer.texts() if text.replace(" ", "").lower().startswith(version)]


def _only(texts: list[str], what: str, check: Callable[[str], dict[str, str]]) -> dict[str, str]:
    """The tags of the one text that there may be. Raises `BadTags`."""
    if len(texts) > 1:
        raise BadTags(
            _("There are %(count)s records of %(what)s, and so none holds") % {"count": len(texts), "what": what}
        )
    try:
        return check(texts[0])
    except BadTags as wrong:
        raise BadTags(_("Receivers cannot read it: %(wrong)s") % {"wrong": wrong}) from None


def _addresses(answers: Iterable[Answer]) -> set[str]:
    return {data.address for answer in answers for data in answer.data}


def _led(answer: Answer) -> tuple[str, ...]:
    return _led_over(answer.chain)


def _led_over(chain: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"CNAME {name}" for name in chain)


def _sts_host(hosted: Hosted) -> str:
    return f"mta-sts.{hosted.name}"


def _parents(name: str) -> Iterator[str]:
    """The domains above one, nearest first, without the top-level one."""
    labels = name.split(".")
    for start in range(1, min(len(labels) - 1, _MOST_PARENTS + 1)):
        yield ".".join(labels[start:])
