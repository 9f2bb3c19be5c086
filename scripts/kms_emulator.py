"""A KMS endpoint without an AWS account: moto's, with the keys and aliases of README, and a count of the calls.

kms_emulator.py DIRECTORY: DIRECTORY/url gets its address, and DIRECTORY/calls a line "OPERATION COUNT" for each operation that
was called. Only for trying things: keys are gone when it ends, and it checks no signature.
"""

import os
import sys
import threading
from pathlib import Path
from unittest import mock

ACCOUNT = "111122223333"
REGION = "eu-central-1"
# The key ids that README shows, by the name of their alias.
KEYS = {
    "patients": "715c0818-5825-4245-a755-138a6d9a11e6",
    "people": "2f8a1c04-7d3e-4b5f-9c60-1e2d3c4b5a69",
    "accounts": "8b3d5e71-0a9c-4f26-8d17-6c5b4a392817",
    "new": "d41e7f93-52b8-4c0a-a6e4-90817263f5b4",
}
os.environ["MOTO_ACCOUNT_ID"] = ACCOUNT

from moto.kms.models import kms_backends  # noqa: E402
from moto.moto_server.werkzeug_app import (  # noqa: E402
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server  # noqa: E402


class Counting:
    """Counts calls by operation before they are answered, so that whoever has an answer finds it counted."""

    def __init__(self, application, path):
        self.application, self.path = application, path
        self.calls, self.lock = {}, threading.Lock()
        self.write()

    def __call__(self, environ, start_response):
        operation = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        with self.lock:
            self.calls[operation] = self.calls.get(operation, 0) + 1
            self.write()
        return self.application(environ, start_response)

    def write(self):
        lines = [f"{operation} {count}\n" for operation, count in sorted(self.calls.items())]
        replace(self.path, "".join(lines))


class Quiet(MotoRequestHandler):
    """No line for each call."""

    def log_request(self, *_):
        pass


def replace(path, text):
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


def main():
    directory = Path(sys.argv[1])
    backend = kms_backends[ACCOUNT][REGION]
    for name, key_id in KEYS.items():
        with mock.patch("moto.kms.models.generate_key_id", return_value=key_id):
            backend.create_key(None, "ENCRYPT_DECRYPT", "SYMMETRIC_DEFAULT", name, None)
        backend.create_alias(key_id, f"alias/{name}")
    application = Counting(DomainDispatcherApplication(create_backend_app), directory / "calls")
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    replace(directory / "url", f"http://127.0.0.1:{server.server_port}")
    server.serve_forever()


main()
