"""The web side as `make run` has it, on a free port, asked over HTTP."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from typing import Any, Self


class Web:
    """gunicorn with as many workers as `make run` has, in the web's role of the database. A context manager."""

    def __init__(self, token: str) -> None:
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def __enter__(self) -> Self:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = int(free.getsockname()[1])
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "gunicorn", "mailhost.wsgi", f"--bind=127.0.0.1:{self._port}", "--workers=2",
                "--worker-class=gthread", "--threads=8", "--log-level=error", "--no-control-socket",
            ],
            env=os.environ | {"MAILHOST_DATABASE_ROLE": "mailhost_web"},
        )  # fmt: skip
        while not self._answers():
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def post(self, path: str, body: Any) -> Any:
        """What is answered. Raises `AssertionError` for a refusal."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        try:
            connection.request("POST", path, json.dumps(body), self._headers)
            answer = connection.getresponse()
            said = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise AssertionError(said)
        return json.loads(said)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port)).close()
        except OSError:
            return False
        return True
