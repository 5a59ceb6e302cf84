"""The dependency audit of ``make check``: what is vulnerable fails it, what was not looked at is said."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

AUDIT = Path(__file__).parents[2] / ".ci" / "audit.py"
SOUND: dict[str, Any] = {"vulns": []}
VULNERABLE: dict[str, Any] = {"vulns": [{"id": "PYSEC-1", "fix_versions": ["2.0"]}]}
UNKNOWN = {"skip_reason": "Dependency not found"}

TOOL = """#!{python}
import json, sys
from pathlib import Path
answers = json.loads({answers!r})
database = sys.argv[sys.argv.index("-s") + 1]
wanted = Path(sys.argv[sys.argv.index("-r") + 1]).read_text().split()
if database not in answers:
    sys.exit("no such host")
told = [{{"name": w.split("==")[0], "version": "1", **answers[database][w.split("==")[0]]}} for w in wanted]
Path(sys.argv[sys.argv.index("-o") + 1]).write_text(json.dumps({{"dependencies": told}}))
"""


def _audit(folder: Path, answers: dict[str, dict[str, Any]], *flags: str) -> "subprocess.CompletedProcess[str]":
    """The audit of two packages, by a tool that gives these answers."""
    lock, tool = folder / "lock", folder / "pip-audit"
    lock.write_text("--index-url x\na==1\nb==1\n")
    tool.write_text(TOOL.format(python=sys.executable, answers=json.dumps(answers)))
    tool.chmod(0o755)
    command = [sys.executable, str(AUDIT), str(lock), "--tool", str(tool), *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_sound_packages_pass(tmp_path: Path) -> None:
    done = _audit(tmp_path, {"pypi": {"a": SOUND, "b": SOUND}}, "--if-possible")
    assert (done.returncode, done.stdout) == (0, "audit: 2 of 2 packages looked at (pypi), 0 vulnerable\n")


def test_a_vulnerable_package_fails_the_check_and_is_named_with_its_cure(tmp_path: Path) -> None:
    done = _audit(tmp_path, {"osv": {"a": SOUND, "b": VULNERABLE}}, "--if-possible")
    assert done.returncode == 1
    assert "audit: b 1: PYSEC-1; mended in 2.0" in done.stdout


def test_a_package_that_could_not_be_looked_at_fails_the_check(tmp_path: Path) -> None:
    done = _audit(tmp_path, {"pypi": {"a": SOUND, "b": UNKNOWN}}, "--if-possible")
    assert done.returncode == 1
    assert "not looked at: b" in done.stdout


def test_without_a_database_the_check_passes_and_says_that_nothing_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"pypi": {"a": UNKNOWN, "b": UNKNOWN}}
    done = _audit(tmp_path, answers, "--if-possible")
    assert done.returncode == 0
    assert "NOT DONE" in done.stdout
    assert _audit(tmp_path, answers).returncode == 1
    monkeypatch.setenv("AUDIT_MUST_RUN", "1")
    assert _audit(tmp_path, answers, "--if-possible").returncode == 1
