"""The API of a real daemon against what its `/openapi.json` says, by schemathesis.

schemathesis brings many packages, and is not one of ours: `pipx install schemathesis` puts it on the PATH. The
stream is left out, because it never ends; 410 is a valid answer to a place, because it may be one in another log.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

from tests.support.command_line import open_shop
from tests.support.daemon import running_daemon, wait_for

CASES = 150  # of each operation
SETTINGS = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "410", "5xx"]
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "406", "409", "410", "415", "422", "428", "429", "5xx"]
# Which texts are a place depends on the table, which a schema of parameters cannot say.
[[operations]]
include-path = "/api/v1/tables/{table}"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "400", "401", "403", "404", "409", "410", "5xx"]
"""


def main() -> int:
    """Exit status 0 when every case is answered as described."""
    program = shutil.which("schemathesis")
    if program is None:
        print("schemathesis is not on the PATH: pipx install schemathesis", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name, open_shop() as shop:
        folder = Path(name)
        folder.joinpath("schemathesis.toml").write_text(SETTINGS)
        with running_daemon(shop.configure(folder, listen="127.0.0.1:0")) as daemon:
            url = wait_for("the URL", daemon.url)
            wait_for("the baseline", lambda: httpx.get(f"{url}/api/v1/status").json()["endpoints"][0]["last_sweep"])
            shop.items = [{"id": 1, "name": "Quince"}, *shop.items[1:]]
            wait_for("the event", lambda: httpx.get(f"{url}/api/v1/events").json()["events"])
            words = ["--exclude-path", "/api/v1/events/stream", "--max-examples", str(CASES), "--phases"]
            run = [program, "run", f"{url}/openapi.json", *words, "examples,coverage,fuzzing"]
            status = subprocess.run(run, cwd=folder, check=False).returncode
        if "Traceback" in daemon.log:
            print(daemon.log, file=sys.stderr)
            return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
