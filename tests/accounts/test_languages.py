"""Everybody reads his language, and times of his zone; programs read English and UTC, whoever asks."""

from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone, translation

from accounts import languages, provisioning, quotas
from accounts.models import AuditEvent, User
from accounts.provisioning import BadValue
from mailstore.templatetags import life
from tests import pages_of
from tests.fixtures import Customer
from tests.mailstore.rows import add_listener, add_session

pytestmark = pytest.mark.django_db

VIETNAMESE = {"accept-language": "vi-VN,vi;q=0.9,en;q=0.5"}
SIGN_IN = "/me/sign-in/"


def page(client: Client, path: str, **options: Any) -> str:
    return pages_of.text(client.get(path, **options))


# --- Before it is known who it is ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "language"),
    [
        ("vi", "vi"),
        ("vi-VN,en;q=0.9", "vi"),
        ("fr,vi;q=0.8", "vi"),
        ("en-GB", "en"),
        ("fr", "en"),
        ("\x00;q=x,,", "en"),
    ],
)
def test_the_browser_asks_for_a_language(asked: str, language: str) -> None:
    response = Client().get(SIGN_IN, headers={"accept-language": asked})
    assert f'<html lang="{language}">' in response.content.decode()
    assert response.headers["Content-Language"] == language
    assert "Accept-Language" in response.headers["Vary"]


@pytest.mark.parametrize("where", [SIGN_IN, "/admin/login/"])
def test_a_language_is_chosen_before_signing_in(where: str) -> None:
    client = Client()
    assert 'value="vi"' in page(client, where)
    answer = client.post(reverse("set-language"), {"language": "vi"}, headers={"referer": f"http://testserver{where}"})
    assert answer.headers["Location"].endswith(where)
    assert client.cookies["django_language"]["httponly"]
    assert 'lang="vi"' in page(client, where, headers={"accept-language": "en"})


def test_a_language_that_we_do_not_speak_is_not_chosen() -> None:
    client = Client()
    client.post(reverse("set-language"), {"language": "fr", "next": "https://elsewhere.example/"})
    client.cookies["django_language"] = "../../vi"
    assert '<html lang="en">' in page(client, SIGN_IN)


def test_where_nobody_asks_the_host_says(settings: Any) -> None:
    settings.MAILHOST_LANGUAGE = "vi"
    assert '<html lang="vi">' in page(Client(), SIGN_IN)
    assert '<html lang="en">' in page(Client(), SIGN_IN, headers={"accept-language": "en"})


def test_nothing_is_left_of_one_request_for_the_next() -> None:
    Client().get(SIGN_IN, headers=VIETNAMESE)
    assert translation.get_language() == "en"
    assert timezone.get_current_timezone_name() == "UTC"


# --- What somebody chose -------------------------------------------------------------------------------------------


def test_an_owner_chooses_language_and_zone(acme: Customer, globex: Customer) -> None:
    add_session(
        acme.mailbox, add_listener("pop3"), fetched=1, end="quit",
        started_at=datetime(2026, 3, 1, 20, 30, tzinfo=UTC), ended_at=datetime(2026, 3, 1, 20, 31, tzinfo=UTC),
    )  # fmt: skip
    client = pages_of.signed_in(acme.mailbox)
    assert "1 Mar 2026 20:30" in page(client, "/me/")
    chosen = {"language": "vi", "time_zone": "Asia/Ho_Chi_Minh"}
    after = pages_of.text(client.post("/me/language/", chosen, follow=True))
    assert "Đã lưu. Từ nay sẽ như vậy." in after
    shown = page(client, "/me/", headers={"accept-language": "en"})
    assert '<html lang="vi">' in shown
    assert "03:30 02/03/2026" in shown
    assert "Asia/Ho_Chi_Minh" in shown
    user = User.objects.get(pk=acme.mailbox.user_id)
    assert (user.language, user.time_zone) == ("vi", "Asia/Ho_Chi_Minh")
    [record] = AuditEvent.objects.filter(action="mailbox.changed")
    assert record.changes == {"language": [None, "vi"], "time_zone": [None, "Asia/Ho_Chi_Minh"]}
    assert '<html lang="en">' in page(pages_of.signed_in(globex.mailbox), "/me/")
    client.post("/me/language/", {"language": "", "time_zone": ""})
    assert '<html lang="en">' in page(client, "/me/", headers={"accept-language": "en"})


@pytest.mark.parametrize("wrong", [{"language": "fr"}, {"time_zone": "Mars/Phobos"}, {"time_zone": "../etc/passwd"}])
def test_an_owner_chooses_what_there_is(acme: Customer, wrong: dict[str, str]) -> None:
    client = pages_of.signed_in(acme.mailbox)
    assert 'role="alert"' in pages_of.text(client.post("/me/language/", wrong), 422)
    user = User.objects.get(pk=acme.mailbox.user_id)
    assert (user.language, user.time_zone) == (None, None)


def test_staff_chooses_language_and_zone_of_the_admin(boss: Client) -> None:
    there = reverse("admin:language")
    assert "Times are those of UTC." in page(boss, there)
    after = pages_of.text(boss.post(there, {"language": "vi", "time_zone": "Asia/Ho_Chi_Minh"}, follow=True))
    assert 'lang="vi"' in after
    assert "Giờ theo múi giờ Asia/Ho_Chi_Minh (UTC+07:00)." in after
    assert "Hộp thư" in page(boss, reverse("admin:accounts_mailbox_changelist"))
    pages_of.text(boss.post(there, {"language": "fr", "time_zone": "Mars/Phobos"}))
    assert User.objects.get(email="boss@acme.test").language == "vi"


def test_a_zone_that_was_given_up_is_as_none(boss: Client) -> None:
    User.objects.filter(email="boss@acme.test").update(time_zone="Mars/Phobos")
    assert "Times are those of UTC." in page(boss, reverse("admin:language"))
    with languages.writing_to(User.objects.get(email="boss@acme.test")):
        assert timezone.get_current_timezone_name() == "UTC"


def test_times_that_are_filled_in_are_of_that_zone(boss: Client, acme: Customer) -> None:
    provisioning.set_language(User.objects.get(email="boss@acme.test"), language="vi", time_zone="Asia/Ho_Chi_Minh")
    values = {
        "address": "sales@acme.test",
        "targets": "an@acme.test",
        "expires_at_0": "2036-05-01",
        "expires_at_1": "06:00",
    }
    boss.post(reverse("admin:accounts_alias_add"), values)
    alias, _is_new = provisioning.add_alias("sales@acme.test", mailbox=acme.mailbox)
    assert alias.expires_at == datetime(2036, 4, 30, 23, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("said", "zone"),
    [("Asia%2FSaigon", "Asia/Ho_Chi_Minh"), ("Europe/Paris", "Europe/Paris"), ("../../etc", "UTC"), ("\x00", "UTC")],
)
def test_the_browser_s_zone_holds_where_none_was_chosen(operator: Client, acme: Customer, said: str, zone: str) -> None:
    owner = pages_of.signed_in(acme.mailbox)
    for client, where in ((operator, reverse("admin:language")), (owner, "/me/language/")):
        client.cookies[languages.ZONE_COOKIE] = said
        shown = page(client, where)
        assert f"Times are those of {languages.named(languages.zone(zone))}." in shown
        assert ("The usual one here: UTC" if zone == "UTC" else f"As the browser says: {zone} (UTC+0") in shown


def test_a_browser_without_scripts_is_told_of_the_host_s_zone(acme: Customer, settings: Any) -> None:
    settings.MAILHOST_TIME_ZONE = "Asia/Ho_Chi_Minh"
    client = pages_of.signed_in(acme.mailbox)
    assert "The usual one here: Asia/Ho_Chi_Minh (UTC+07:00)" in page(client, "/me/language/")
    client.post("/me/language/", {"language": "", "time_zone": "Asia/Tokyo"})
    assert "Times are those of Asia/Tokyo (UTC+09:00)." in page(client, "/me/")


def test_refusals_are_told_in_the_reader_s_language(boss: Client, acme: Customer) -> None:
    values = {"address": "an@nowhere.test"}
    said = pages_of.text(boss.post(reverse("admin:accounts_mailbox_add"), values, headers=VIETNAMESE))
    assert "nowhere.test không được lưu trữ tại đây." in said


def test_a_language_is_said_when_a_mailbox_is_made(acme: Customer, boss: Client) -> None:
    mailbox, _is_new = provisioning.add_mailbox("b@acme.test", password=None, quota_octets=None, language="vi")
    assert User.objects.get(pk=mailbox.user_id).language == "vi"
    assert provisioning.change_mailbox(mailbox, language=None)
    assert User.objects.get(pk=mailbox.user_id).language is None
    with pytest.raises(BadValue, match="a language is one of en, vi"):
        provisioning.change_mailbox(mailbox, language="fr")
    boss.post(reverse("admin:accounts_mailbox_add"), {"address": "c@acme.test", "language": "vi"})
    assert User.objects.get(email="c@acme.test").language == "vi"


# --- Programs ------------------------------------------------------------------------------------------------------


def test_the_api_answers_in_english_and_in_utc(acme: Customer, settings: Any) -> None:
    settings.MAILHOST_LANGUAGE, settings.MAILHOST_TIME_ZONE = "vi", "Asia/Ho_Chi_Minh"
    client = Client()
    client.cookies["django_language"] = "vi"
    for path in ("/api/v1/mailboxes/", "/api/nothing/"):
        answer = client.get(path, headers=VIETNAMESE)
        assert answer.content.isascii(), answer.content
        assert "Content-Language" not in answer.headers


def test_commands_answer_in_english(acme: Customer, settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    settings.MAILHOST_LANGUAGE = "vi"
    call_command("setlimits", "tenant", "acme", "--mailboxes", "5")
    assert "1 of 5" in capsys.readouterr().out


def test_zones_are_named_as_they_are_called_now() -> None:
    assert languages.zone("Asia/Saigon").key == "Asia/Ho_Chi_Minh"
    assert "Asia/Saigon" not in languages.zones()
    assert "Asia/Ho_Chi_Minh" in languages.zones()
    with pytest.raises(ValueError, match="a time zone such as UTC"):
        languages.zone("Etc/GMT+7")


def test_former_names_of_zones_are_not_to_be_chosen_but_stay_chosen() -> None:
    def offered(chosen: str | None) -> set[str]:
        return {name for _region, places in languages.regions(chosen) for name, _place in places}

    assert languages.zone("Australia/ACT").key == "Australia/ACT"  # as a browser may say
    assert {"UTC", "Australia/Sydney", "Europe/Oslo", "Asia/Ho_Chi_Minh"} <= offered(None)
    assert not {"Australia/ACT", "America/Fort_Wayne", "Europe/Belfast"} & offered(None)
    assert offered("Australia/ACT") - offered(None) == {"Australia/ACT"}


def test_zones_tell_what_they_are_from_utc() -> None:
    assert languages.named(languages.zone("Asia/Saigon")) == "Asia/Ho_Chi_Minh (UTC+07:00)"
    assert languages.named(languages.zone("UTC")) == languages.named(UTC) == "UTC"
    offered = dict(languages.regions())
    assert ("Asia/Kathmandu", "Kathmandu (UTC+05:45)") in offered["Asia"]
    assert ("America/Argentina/Salta", "Argentina/Salta (UTC-03:00)") in offered["America"]


def test_numbers_and_sizes_are_written_as_the_language_does() -> None:
    told = {}
    for language in ("en", "vi"):
        with translation.override(language):
            told[language] = (languages.number(1234567), languages.number(1234.5, 1), quotas.rounded(5_500_000))
    assert (quotas.rounded(1000), quotas.rounded(1024**3 * 199 // 100), quotas.rounded(1024**3 - 1)) == (
        "1.0K",
        "2.0G",
        "1.0G",
    )
    assert told == {"en": ("1,234,567", "1,234.5", "5.2M"), "vi": ("1.234.567", "1.234,5", "5,2M")}


def test_a_moment_of_this_year_is_in_the_order_of_the_language(monkeypatch: pytest.MonkeyPatch) -> None:
    here = timezone.now().replace(month=6, day=15)
    monkeypatch.setattr(life, "localtime", lambda at=here: at)
    at = here.replace(month=3, day=2, hour=9, minute=2)
    told = {}
    for language in ("en", "vi"):
        with translation.override(language):
            told[language] = life.moment(at)
    assert told == {"en": "2 Mar 09:02", "vi": "09:02 02/03"}


def test_a_moment_that_no_page_is_around_names_its_zone() -> None:
    at = datetime(2026, 3, 1, 20, 30, tzinfo=UTC)
    assert languages.moment(at) == "1 Mar 2026 20:30, UTC"
    with translation.override("vi"), timezone.override(languages.zone("Asia/Ho_Chi_Minh")):
        assert languages.moment(at) == "03:30 02/03/2026, Asia/Ho_Chi_Minh (UTC+07:00)"
