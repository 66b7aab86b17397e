"""The log tells what an operator should know: no task that only went as usual, and no mistake of a program."""

import json
import os
import subprocess
import sys
from http import HTTPStatus

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.utils.log import log_response

CHATTY = ("celery.beat", "celery.worker.strategy", "celery.app.trace")
LEVELS = f"""
import json, logging, django
django.setup()
names = ["root", *{CHATTY!r}]
print(json.dumps({{name: logging.getLevelName(logging.getLogger(name).getEffectiveLevel()) for name in names}}))
"""


def levels(level: str) -> dict[str, str]:
    """From which level on loggers log, with a MAILHOST_LOG_LEVEL."""
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "mailhost.settings", "MAILHOST_LOG_LEVEL": level}
    done = subprocess.run([sys.executable, "-c", LEVELS], env=environment, capture_output=True, check=True, timeout=60)
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("level", "tasks"), [("DEBUG", "DEBUG"), ("INFO", "WARNING"), ("WARNING", "WARNING"), ("ERROR", "ERROR")]
)
def test_tasks_that_go_as_usual_are_told_to_who_asks_for_everything(level: str, tasks: str) -> None:
    assert levels(level) == {"root": level} | dict.fromkeys(CHATTY, tasks)


@pytest.mark.django_db
def test_a_mistake_of_a_program_is_told_to_it_alone(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    for path in ("/api/v1/domains/", "/api/v1/nothing/"):
        assert 400 <= client.get(path).status_code < 500
    assert [record for record in caplog.records if record.name == "django.request"] == []
    client.get("/nothing/")
    assert [record.levelname for record in caplog.records if record.name == "django.request"] == ["WARNING"]


def test_a_fault_of_ours_is_logged(rf: RequestFactory, caplog: pytest.LogCaptureFixture) -> None:
    request: HttpRequest = rf.get("/api/v1/domains/")
    status = HTTPStatus.SERVICE_UNAVAILABLE
    log_response("%s: %s", status.phrase, request.path, request=request, response=HttpResponse(status=status))
    assert [(record.name, record.levelname) for record in caplog.records] == [("django.request", "ERROR")]
