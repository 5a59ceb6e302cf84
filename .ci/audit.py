"""Known vulnerabilities of the pinned packages, through pip-audit: found, none, or not looked at and said so.

``python .ci/audit.py LOCK [--if-possible] [--tool PIP_AUDIT]``. A database is tried with one package first. Exit code 1
if a package has a known vulnerability or could not be looked at; with ``--if-possible`` a machine that reaches no
database passes, and says loudly that nothing was audited (``AUDIT_MUST_RUN=1`` takes that leave away).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

DATABASES = ("pypi", "osv")
ANSWER_SECONDS = 5


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("lock", type=Path)
    parser.add_argument("--if-possible", action="store_true")
    parser.add_argument("--tool", default=str(Path(sys.executable).with_name("pip-audit")))
    options = parser.parse_args()
    pinned = [line for line in options.lock.read_text().splitlines() if "==" in line]
    for database in DATABASES:
        first = _ask(options.tool, database, pinned[:1])
        if first and "skip_reason" not in first[0]:
            return _report(database, _ask(options.tool, database, pinned), len(pinned))
    lenient = options.if_possible and os.environ.get("AUDIT_MUST_RUN") != "1"
    sys.stdout.write(
        f"audit: NOT DONE. No vulnerability database answers here ({', '.join(DATABASES)}): the {len(pinned)} pinned "
        f"packages have not been looked at. {'Run `make audit` where one does.' if lenient else ''}\n"
    )
    return 0 if lenient else 1


def _ask(tool: str, database: str, pinned: list[str]) -> list[dict[str, Any]]:
    """What the database says of each package; empty if it does not answer."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, told = Path(folder, "requirements.txt"), Path(folder, "told.json")
        wanted.write_text("\n".join(pinned) + "\n")
        command = [tool, "-r", str(wanted), "--no-deps", "--disable-pip", "--progress-spinner", "off"]
        command += ["-s", database, "--timeout", str(ANSWER_SECONDS), "-f", "json", "-o", str(told)]
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return list(json.loads(told.read_text())["dependencies"]) if told.exists() else []


def _report(database: str, told: list[dict[str, Any]], wanted: int) -> int:
    bad = [each for each in told if each.get("vulns")]
    unread = [each["name"] for each in told if "skip_reason" in each]
    for each in bad:
        names = ", ".join(found["id"] for found in each["vulns"])
        fixed = sorted({version for found in each["vulns"] for version in found.get("fix_versions", ())})
        sys.stdout.write(
            f"audit: {each['name']} {each['version']}: {names}; mended in {', '.join(fixed) or 'nothing'}\n"
        )
    if unread or len(told) < wanted:
        sys.stdout.write(f"audit: not looked at: {', '.join(unread) or 'some, the database stopped answering'}\n")
    sys.stdout.write(
        f"audit: {len(told) - len(unread)} of {wanted} packages looked at ({database}), {len(bad)} vulnerable\n"
    )
    return 1 if bad or unread or len(told) < wanted else 0


if __name__ == "__main__":
    sys.exit(main())
