"""The rules for alerts and the Grafana board, checked and tested by promtool (`apt install prometheus`)."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import orjson

GRAFANA = Path(__file__).parents[2] / "docs" / "grafana"
VARIABLES = {"$__rate_interval": "5m", "$source": ".*", "$subscription": ".*"}


def expressions(board: dict[str, Any]) -> list[str]:
    """Every expression of the board, with values for its variables."""
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    for name, value in VARIABLES.items():
        found = [one.replace(name, value) for one in found]
    return found


def main() -> int:
    """Exit status 0 when promtool finds nothing."""
    if shutil.which("promtool") is None:
        print("promtool is not on the PATH: apt install prometheus", file=sys.stderr)
        return 2
    board = orjson.loads((GRAFANA / "poller.json").read_bytes())
    rules = [{"record": f"board:{at}", "expr": one} for at, one in enumerate(expressions(board))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "board.yml"  # YAML is a superset of JSON
        path.write_bytes(orjson.dumps({"groups": [{"name": "board", "rules": rules}]}))
        steps = [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"], ["check", "rules", str(path)]]
        ended = [subprocess.run(["promtool", *words], cwd=GRAFANA, check=False).returncode for words in steps]
    return max(ended)


if __name__ == "__main__":
    sys.exit(main())
