"""The database's roles where our user is an ordinary one, as at a hosting provider's."""

import subprocess
import sys
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from django.conf import settings

from tests.servers import Servers

CHECK = """
from django.test import Client
from accounts import provisioning, scope
from accounts.models import Tenant
print("outside", Tenant.objects.count())
with scope.whole_host():
    provisioning.add_tenant("acme")
    provisioning.add_tenant("globex")
    acme = Tenant.objects.get(slug="acme")
from accounts.principals import Principal
with scope.entered(Principal(role="tenant-admin", tenant_id=acme.pk)):
    print("within", list(Tenant.objects.values_list("slug", flat=True)))
print("after", Tenant.objects.count())
"""


def manage(servers: Servers, url: str, *arguments: str, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=settings.BASE_DIR,
        env=servers.environment | {"DATABASE_URL": url} | more,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def owned(servers: Servers, *, options: str) -> str:
    """The URL of a database that an ordinary user owns."""
    with psycopg.connect(servers.urls.postgres, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE ordinary LOGIN NOSUPERUSER {options} PASSWORD 'secret'")
        connection.execute("CREATE DATABASE theirs OWNER ordinary")
    found = urlsplit(servers.urls.postgres)
    host = found.netloc.rpartition("@")[2]
    return urlunsplit(found._replace(netloc=f"ordinary:secret@{host}", path="/theirs"))


def test_an_ordinary_user_who_may_make_roles_is_enough(private_servers: Servers) -> None:
    url = owned(private_servers, options="CREATEROLE")
    manage(private_servers, url, "migrate", "--verbosity=0")
    manage(private_servers, url, "migrate", "--verbosity=0")  # changes nothing
    said = manage(private_servers, url, "shell", "-v0", "-c", CHECK, MAILHOST_DATABASE_ROLE="mailhost_web")
    assert said.splitlines() == ["outside 0", "within ['acme']", "after 0"]


def test_who_may_not_make_roles_is_told_what_to_ask_for(private_servers: Servers) -> None:
    url = owned(private_servers, options="NOCREATEROLE")
    with pytest.raises(AssertionError, match="CREATE ROLE mailhost_web NOLOGIN"):
        manage(private_servers, url, "migrate", "--verbosity=0")
    with psycopg.connect(private_servers.urls.postgres, autocommit=True) as connection:
        for role in ("mailhost_web", "mailhost_listener", "mailhost_worker"):
            connection.execute(f"CREATE ROLE {role} NOLOGIN")
            connection.execute(f"GRANT {role} TO ordinary")
    manage(private_servers, url, "migrate", "--verbosity=0")
    said = manage(private_servers, url, "shell", "-v0", "-c", CHECK, MAILHOST_DATABASE_ROLE="mailhost_web")
    assert said.splitlines() == ["outside 0", "within ['acme']", "after 0"]
