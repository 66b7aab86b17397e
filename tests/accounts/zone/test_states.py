"""What is wrong with a domain's DNS, told apart over real packets."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import dns.rcode
import dns.zone
import pytest

from accounts.zone import asking
from accounts.zone.asking import Outcome, Question
from accounts.zone.records import Host, Hosted, Need, Purpose, quoted, records, sts_policy, zone_file
from accounts.zone.states import State, Verdict, look
from tests.accounts.nameserver import NOTHING, NameServer
from tests.accounts.zone.conftest import HOST, HOSTED, all_right
from tests.servers import eventually


def states(server: NameServer, hosted: Hosted = HOSTED, host: Host = HOST) -> dict[Purpose, State]:
    return look(records(hosted, host), hosted, host, [("127.0.0.1", server.port)])


def state(server: NameServer, purpose: Purpose, host: Host = HOST) -> State:
    return states(server, host=host)[purpose]


def texts(name: str, *texts: str) -> list[str]:
    return [f"{name} TXT {quoted(text).replace(chr(92) * 2, chr(92))}" for text in texts]


def test_what_was_published_as_it_was_shown_is_right(server: NameServer) -> None:
    found = states(server)
    assert set(found) == set(Purpose)
    assert {purpose: one.said for purpose, one in found.items() if one.verdict is not Verdict.RIGHT} == {}


def test_a_domain_of_an_international_name_is_asked_for_by_its_a_labels(server: NameServer) -> None:
    hosted = replace(HOSTED, name="xn--bcher-kva.test", ownership=("_mailhost.xn--bcher-kva.test", "x=1"))
    server.records = all_right(hosted, HOST)
    assert {one.verdict for one in states(server, hosted).values()} == {Verdict.RIGHT}


def test_a_host_that_sends_nothing_asks_for_nothing_that_is_about_sending(server: NameServer) -> None:
    host = replace(HOST, smtp=None, spf="")
    found = {record.purpose: record for record in records(HOSTED, host)}
    assert Purpose.SUBMISSIONS not in found
    assert (found[Purpose.SPF].need, found[Purpose.SPF].is_pasted) == (Need.OPTIONAL, False)
    server.records["acme.test"] = texts("acme.test", "v=spf1 include:elsewhere.example -all")
    assert state(server, Purpose.SPF, host).verdict is Verdict.RIGHT


def test_what_an_operator_has_vouched_for_needs_no_record() -> None:
    need = {record.purpose: record.need for record in records(replace(HOSTED, is_trusted=True), HOST)}
    assert need[Purpose.OWNERSHIP] is Need.OPTIONAL


def test_silent_name_servers_do_not_take_every_thread(server: NameServer) -> None:
    question = Question("acme.test", "MX")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent, ThreadPoolExecutor() as threads:
        silent.bind(("127.0.0.1", 0))
        waiting = [threads.submit(asking.ask, [question], [silent.getsockname()]) for _ in range(asking.AT_ONCE)]
        eventually(lambda: asking._seats._value == 0)
        assert asking.ask([question], [("127.0.0.1", server.port)])[question].outcome is Outcome.UNASKED
        mx = state(server, Purpose.MX)
        assert (mx.verdict, "was not asked" in mx.said) == (Verdict.NO_ANSWER, True)
        assert not any(one.done() for one in waiting)
        assert {one.result()[question].outcome for one in waiting} == {Outcome.SILENT}
    assert asking.ask([question], [("127.0.0.1", server.port)])[question].outcome is Outcome.FOUND


# --- How DNS may not tell ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "verdict", "said"),
    [
        (dns.rcode.NXDOMAIN, Verdict.MISSING, "no such name"),
        (NOTHING, Verdict.MISSING, "no record of this type"),
        (dns.rcode.SERVFAIL, Verdict.NO_ANSWER, "(SERVFAIL)"),
        (dns.rcode.REFUSED, Verdict.NO_ANSWER, "(REFUSED)"),
    ],
)
def test_the_ways_not_to_tell_are_told_apart(server: NameServer, found: Any, verdict: Verdict, said: str) -> None:
    for name in server.records:
        if name.endswith("acme.test"):
            server.records[name] = found
    for purpose, one in states(server).items():
        assert (one.verdict, one.found) == (verdict, ()), purpose
        assert said in one.said, purpose


def test_silence_says_nothing_and_costs_its_time_once(server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in server.records:
        if name.endswith("acme.test") and name != "_pop3s._tcp.acme.test":
            server.records[name] = None
    began = time.monotonic()
    found = states(server)
    assert time.monotonic() - began < 2 * asking.LIFETIME
    assert found.pop(Purpose.POP3S).verdict is Verdict.RIGHT
    for purpose, one in found.items():
        assert (one.verdict, "did not answer within 3 seconds" in one.said) == (Verdict.NO_ANSWER, True), purpose


def test_a_server_that_is_not_there_gives_no_answer() -> None:
    question = Question("acme.test", "MX")
    [answer] = asking.ask([question], [("127.0.0.1", 1)], lifetime=0.3).values()
    assert answer.outcome in (Outcome.FAILED, Outcome.SILENT)


def test_a_packet_that_is_lost_is_sent_again(server: NameServer) -> None:
    answer = server.answer
    lost: list[bytes] = []

    def once(packet: bytes, *, over: str) -> bytes | None:
        if not lost:
            lost.append(packet)
            return None
        return answer(packet, over=over)

    server.answer = once  # type: ignore[method-assign] # the network
    [found] = asking.ask([Question("acme.test", "MX")], [("127.0.0.1", server.port)]).values()
    assert (found.outcome, len(lost)) == (Outcome.FOUND, 1)


def test_a_name_that_is_too_long_does_not_exist(server: NameServer) -> None:
    name = ".".join(["a" * 61] * 4)[:253]
    hosted = replace(HOSTED, name=name, ownership=(f"_mailhost.{name}", "x"))
    assert {one.verdict for one in states(server, hosted).values()} == {Verdict.MISSING}


def test_a_truncated_answer_is_asked_for_over_tcp(server: NameServer) -> None:
    server.truncating = True
    assert {one.verdict for one in states(server).values()} == {Verdict.RIGHT}


def test_records_behind_a_cname_count_and_the_way_is_told(server: NameServer) -> None:
    server.records["_dmarc.acme.test"] = ["_dmarc.acme.test CNAME d.acme.test.", 'd.acme.test TXT "v=DMARC1; p=none"']
    assert state(server, Purpose.DMARC).verdict is Verdict.RIGHT
    server.records["_pop3s._tcp.acme.test"] = ["_pop3s._tcp.acme.test CNAME gone.test."]
    found = state(server, Purpose.POP3S)
    assert (found.verdict, found.found) == (Verdict.MISSING, ("CNAME gone.test",))


# --- Ownership -----------------------------------------------------------------------------------------------------


def test_the_record_of_ownership_may_stand_at_the_domain(server: NameServer) -> None:
    del server.records["_mailhost.acme.test"]
    assert state(server, Purpose.OWNERSHIP).verdict is Verdict.MISSING
    server.records["acme.test"] = texts("acme.test", "v=spf1 -all", HOSTED.ownership[1])
    assert state(server, Purpose.OWNERSHIP).verdict is Verdict.RIGHT


def test_anothers_record_of_ownership_is_wrong(server: NameServer) -> None:
    server.records["_mailhost.acme.test"] = texts("_mailhost.acme.test", "mailhost-verification=2e")
    found = state(server, Purpose.OWNERSHIP)
    assert (found.verdict, found.found) == (Verdict.WRONG, ("mailhost-verification=2e",))


# --- MX ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exchangers", "verdict", "said"),
    [
        (["10 MX1.host.example.", "20 mx2.host.example."], Verdict.RIGHT, "comes here"),
        (["5 mx2.host.example.", "5 mx1.host.example."], Verdict.RIGHT, "comes here"),
        (["10 mx1.host.example."], Verdict.WRONG, "mx2.host.example is not named"),
        (["1 a.example.", "10 mx1.host.example.", "20 mx2.host.example."], Verdict.WRONG, "also go to a.example"),
        (["1 a.example."], Verdict.WRONG, "goes elsewhere"),
        (["0 ."], Verdict.WRONG, "RFC 7505"),
    ],
)
def test_mail_has_to_come_here(server: NameServer, exchangers: list[str], verdict: Verdict, said: str) -> None:
    server.records["acme.test"] = [f"acme.test MX {exchanger}" for exchanger in exchangers]
    found = state(server, Purpose.MX)
    assert (found.verdict, said in found.said) == (verdict, True), found
    assert len(found.found) == len(exchangers)


# --- SPF -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("records", "verdict", "said", "instead"),
    [
        (["v=spf1 include:_spf.host.example ~all"], Verdict.RIGHT, "allows", ""),
        (["V=SPF1 mx +INCLUDE:_spf.Host.example. -all"], Verdict.RIGHT, "allows", ""),
        (["v=spf1 redirect=_spf.host.example"], Verdict.RIGHT, "allows", ""),
        (["other", "v=spf10 x", "v=spf1 include:_spf.host.example"], Verdict.RIGHT, "allows", ""),
        (
            ["v=spf1 mx include:other.example ~all"], Verdict.WRONG, "lacks include:_spf.host.example",
            "v=spf1 mx include:other.example include:_spf.host.example ~all",
        ),
        (["v=spf1"], Verdict.WRONG, "lacks", "v=spf1 include:_spf.host.example"),
        (
            ["v=spf1 mx redirect=a.example"], Verdict.WRONG, "lacks",
            "v=spf1 mx include:_spf.host.example redirect=a.example",
        ),
        (
            ["v=spf1 -all include:_spf.host.example"], Verdict.WRONG, "lacks",
            "v=spf1 include:_spf.host.example -all include:_spf.host.example",
        ),
        (
            ["v=spf1 -include:_spf.host.example -all"], Verdict.WRONG, "lacks",
            "v=spf1 -include:_spf.host.example include:_spf.host.example -all",
        ),
        (["v=spf1 mx -all", "v=spf1 a -all"], Verdict.WRONG, "2 SPF records", ""),
        (["v=spf1 include:_spf.host.example +all"], Verdict.WRONG, "anybody", ""),
        (["v=spf1 include:_spf.host.example inclde:x ~all"], Verdict.WRONG, "“inclde:x”", ""),
        (["v=spf1 include: ~all"], Verdict.WRONG, "“include:”", ""),
        (["v=spf1 mx\\010evil. ~all"], Verdict.WRONG, "“mx\\x0aevil.”", ""),
        (["v=spf1 include:_spf.host.example " + "a:b.example " * 9 + "-all"], Verdict.RIGHT, "allows", ""),
        (["v=spf1 include:_spf.host.example " + "a:b.example " * 10 + "-all"], Verdict.WRONG, "11 times", ""),
        (
            ["v=spf1 " + "mx:b.example " * 10 + "-all"], Verdict.WRONG, "11 times",
            "v=spf1 " + "mx:b.example " * 10 + "include:_spf.host.example -all",
        ),
        (["mailhost-verification=1f"], Verdict.MISSING, "no record of SPF", ""),
    ],
)  # fmt: skip
def test_an_spf_record_is_added_to_and_never_doubled(
    server: NameServer, records: list[str], verdict: Verdict, said: str, instead: str
) -> None:
    server.records["acme.test"] = texts("acme.test", *records)
    found = state(server, Purpose.SPF)
    assert (found.verdict, said in found.said, found.instead) == (verdict, True, instead), found


def test_long_texts_come_in_several_strings_and_are_one(server: NameServer) -> None:
    long = "v=spf1 " + " ".join(f"ip4:192.0.2.{number}" for number in range(60)) + " include:_spf.host.example -all"
    assert quoted(long).count('" "') == 3
    server.records["acme.test"] = texts("acme.test", long)
    found = state(server, Purpose.SPF)
    assert (found.verdict, found.found) == (Verdict.RIGHT, (long,))


# --- DMARC, MTA-STS, TLS-RPT ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "verdict", "said"),
    [
        (["v=DMARC1; p=none"], Verdict.RIGHT, "rua=mailto"),
        (["v=DMARC1;p=Reject;rua=mailto:a@b.example,mailto:c@d.example!10m;pct=50;adkim=s;"], Verdict.RIGHT, "reject"),
        (["v=DMARC1; p=none", "v=DMARC1; p=reject"], Verdict.WRONG, "2 records"),
        (["v=DMARC1"], Verdict.WRONG, "p= is missing"),
        (["v=dmarc1; p=none"], Verdict.WRONG, "does not begin with v=DMARC1"),
        (["v=DMARC1; p=rejct"], Verdict.WRONG, "p= cannot be “rejct”"),
        (["v=DMARC1; p=none; p=none"], Verdict.WRONG, "p= comes twice"),
        (["v=DMARC1; p=none; rua=a@b.example"], Verdict.WRONG, "rua= cannot be"),
        (["v=DMARC1; p=none; pct=101"], Verdict.WRONG, "pct="),
        (["v=DMARC1; p=none, rua=mailto:a@b.example"], Verdict.WRONG, "p= cannot be"),
        (["v=DMARC1; none"], Verdict.WRONG, "“none” is not written as name=value"),
        (["hello"], Verdict.MISSING, "no record of DMARC"),
    ],
)
def test_a_dmarc_policy_is_read_as_receivers_do(
    server: NameServer, found: list[str], verdict: Verdict, said: str
) -> None:
    server.records["_dmarc.acme.test"] = texts("_dmarc.acme.test", *found)
    one = state(server, Purpose.DMARC)
    assert (one.verdict, said in one.said) == (verdict, True), one


def test_the_policy_of_a_domain_holds_for_those_below(server: NameServer) -> None:
    hosted = replace(HOSTED, name="shop.acme.test")
    found = states(server, hosted)[Purpose.DMARC]
    assert (found.verdict, "acme.test holds here" in found.said) == (Verdict.RIGHT, True)
    assert ("udp", "_dmarc.test") not in server.asked


def test_mta_sts_needs_a_host_that_serves_the_policy(server: NameServer) -> None:
    server.records["mta-sts.acme.test"] = NOTHING
    assert "mta-sts.acme.test, which must serve the policy, has no address" in state(server, Purpose.MTA_STS).said
    server.records["mta-sts.acme.test"] = None
    assert state(server, Purpose.MTA_STS).verdict is Verdict.NO_ANSWER
    server.records["_mta-sts.acme.test"] = texts("_mta-sts.acme.test", "v=STSv1; id=2026-01-01")
    assert "id= cannot be" in state(server, Purpose.MTA_STS).said
    assert "mx: mx1.host.example\nmx: mx2.host.example\n" in sts_policy(HOST)


def test_tls_rpt_names_who_gets_reports(server: NameServer) -> None:
    server.records["_smtp._tls.acme.test"] = texts("_smtp._tls.acme.test", "v=TLSRPTv1;rua=https://r.example/x")
    assert state(server, Purpose.TLS_RPT).verdict is Verdict.RIGHT
    server.records["_smtp._tls.acme.test"] = texts("_smtp._tls.acme.test", "v=TLSRPTv1")
    assert "rua= is missing" in state(server, Purpose.TLS_RPT).said


# --- What mail programs ask for ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("purpose", "name", "data", "verdict", "said"),
    [
        (Purpose.POP3S, "_pop3s._tcp", ["5 1 995 POP.host.example."], Verdict.RIGHT, "right"),
        (Purpose.POP3S, "_pop3s._tcp", ["0 0 1995 pop.host.example."], Verdict.WRONG, "another port"),
        (Purpose.POP3S, "_pop3s._tcp", ["0 0 995 a.example."], Verdict.WRONG, "another server"),
        (Purpose.POP3S, "_pop3s._tcp", ["0 0 995 pop.host.example.", "9 0 995 a.example."], Verdict.WRONG, "also"),
        (Purpose.POP3S, "_pop3s._tcp", ["0 0 0 ."], Verdict.WRONG, "no such service"),
        (Purpose.POP3, "_pop3._tcp", ["0 0 110 ."], Verdict.RIGHT, "right"),
        (Purpose.POP3, "_pop3._tcp", ["0 0 110 pop.host.example."], Verdict.RIGHT, "STLS"),
        (Purpose.POP3, "_pop3._tcp", ["0 0 110 a.example."], Verdict.WRONG, "another server"),
        (Purpose.SUBMISSIONS, "_submissions._tcp", ["0 0 465 smtp.host.example."], Verdict.RIGHT, "right"),
    ],
)
def test_a_service_is_here_or_elsewhere(
    server: NameServer, purpose: Purpose, name: str, data: list[str], verdict: Verdict, said: str
) -> None:
    server.records[f"{name}.acme.test"] = [f"{name}.acme.test SRV {one}" for one in data]
    found = state(server, purpose)
    assert (found.verdict, said in found.said) == (verdict, True), found


@pytest.mark.parametrize(
    ("lines", "verdict", "said"),
    [
        (["autoconfig.acme.test CNAME x.test.", "x.test CNAME mail.host.example."], Verdict.RIGHT, "leads to"),
        (["autoconfig.acme.test A 192.0.2.25"], Verdict.RIGHT, "addresses"),
        (["autoconfig.acme.test A 192.0.2.25", "autoconfig.acme.test A 192.0.2.9"], Verdict.WRONG, "elsewhere"),
        (["autoconfig.acme.test CNAME a.example.", "a.example A 192.0.2.9"], Verdict.WRONG, "elsewhere"),
        (["autoconfig.acme.test CNAME a.example."], Verdict.WRONG, "elsewhere"),
        (NOTHING, Verdict.MISSING, "no record"),
    ],
)
def test_a_name_leads_here_by_cname_or_by_address(server: NameServer, lines: Any, verdict: Verdict, said: str) -> None:
    server.records["autoconfig.acme.test"] = lines
    found = state(server, Purpose.AUTOCONFIG)
    assert (found.verdict, said in found.said) == (verdict, True), found


# --- To be pasted --------------------------------------------------------------------------------------------------


def test_the_zone_file_is_one_and_says_what_it_replaces() -> None:
    text = zone_file(records(HOSTED, HOST), {Purpose.SPF: "v=spf1 mx " + "ip4:192.0.2.1 " * 30 + "-all"})
    assert "; in place of the one that is there:\nacme.test. 3600 IN TXT" in text
    zone = dns.zone.from_text(text, origin="acme.test.", check_origin=False)
    assert {record.kind for record in records(HOSTED, HOST)} == {"MX", "TXT", "SRV", "CNAME"}
    assert len(zone.nodes) >= 9
    assert "_mta-sts" not in text
