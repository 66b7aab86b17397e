"""A browser in which the owner of a mailbox has signed in to the pages, through the form."""

from typing import Any

from django.urls import reverse

from accounts.models import Mailbox
from tests.fixtures import PASSWORD, WebClient, stranger


def browser(**extra: Any) -> WebClient:
    """One that sits where nobody has failed to sign in before."""
    return WebClient(REMOTE_ADDR=str(stranger()), **extra)


def signed_in(mailbox: Mailbox, password: str = PASSWORD) -> WebClient:
    """A browser of the mailbox's owner."""
    client = browser()
    response = client.post(reverse("owner-sign-in"), {"address": str(mailbox), "password": password})
    assert response.status_code == 302, response.content.decode()
    return client


def text(response: Any, status: int = 200) -> str:
    """The page, which must have that status."""
    assert response.status_code == status, (response.status_code, response.content.decode()[:2000])
    return str(response.content.decode())
