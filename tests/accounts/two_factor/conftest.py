"""Somebody with admin rights, a browser in which he signs in, and the app on his telephone."""

import html
import re
import time
from dataclasses import dataclass
from typing import Any

import pytest
from django.conf import settings

from accounts import provisioning
from accounts.models import User
from accounts.two_factor import factors, totp
from tests.fixtures import Customer, WebClient, stranger

PASSWORD = "correct horse"
SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"

LOGIN, SECOND, SECURITY = "/admin/login/", "/admin/login/second-step/", "/admin/security/"


def code(steps: int = 0) -> str:
    """What the app shows, or shows so many steps later.

    That of a step ago is good until this one ends: it is not shown in the last second of one.
    """
    left = totp.STEP - time.time() % totp.STEP
    if steps < 0 and left < 1:
        time.sleep(left)
    return totp._totp(SECRET).generate(int(time.time()) + steps * totp.STEP).decode()


def with_app(user: User) -> User:
    """Somebody who has an app with `SECRET`, and has used the codes before this step."""
    factors.add_app(user, SECRET, code(-1), secret=settings.SECRET_KEY)
    return user


@dataclass
class Browser:
    """A browser somewhere, on the admin's pages."""

    client: Any

    def get(self, path: str) -> Any:
        return self.client.get(path, headers={"host": "localhost"})

    def post(self, path: str, **fields: Any) -> Any:
        return self.client.post(path, fields, headers={"host": "localhost"})

    def give_password(self, user: User, password: str = PASSWORD, then: str = "") -> Any:
        """The first step."""
        query = f"?next={then}" if then else ""
        return self.post(LOGIN + query, username=str(user), password=password)

    def sign_in(self, user: User, at: int = 0) -> Any:
        """Both steps."""
        self.give_password(user)
        answer = self.post(SECOND, code=code(at))
        assert answer.status_code == 302, answer.content.decode()
        return answer

    @property
    def is_in(self) -> bool:
        """Whether it shows the admin's first page."""
        return bool(self.get("/admin/").status_code == 200)

    @property
    def key(self) -> str:
        """The session's."""
        return str(self.client.session.session_key)

    def question(self, path: str) -> str:
        """What a page asks the browser for a passkey."""
        [found] = re.findall(r'data-question="([^"]*)"', self.get(path).content.decode())
        return html.unescape(found)


def browser() -> Browser:
    """A browser at an address where nobody has failed before."""
    return Browser(WebClient(REMOTE_ADDR=str(stranger()), HTTP_USER_AGENT="(Linux) Firefox/140"))


@pytest.fixture
def boss(acme: Customer) -> User:
    """The admin of acme."""
    return provisioning.add_staff("boss@acme.test", password=PASSWORD, tenant=acme.tenant)


@pytest.fixture
def here() -> Browser:
    """A browser."""
    return browser()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is refused without the wait: how long that is stands in other tests."""
    monkeypatch.setattr("accounts.throttle.LONGEST_DELAY", 0.0)
    monkeypatch.setattr("accounts.throttle._TICK", 0.001)
    monkeypatch.setattr("accounts.authentication.REFUSED_AFTER", 0.0)
