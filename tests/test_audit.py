"""The audit of packages: real pip-audit against a source on this machine, which knows one vulnerability."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading

import pytest

import dev
import dev_audit

PACKAGES = ["idna==3.6", "click==8.1.7"]
ADVISORY = {
    "id": "TEST-2024-1",
    "summary": "It can be made to take for ever.",
    "affected": [
        {
            "package": {"name": "idna", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "3.7"}]}],
        }
    ],
}


@pytest.fixture(scope="module")
def tool():
    return str(dev.executable(dev.environment("audit"), "pip-audit"))


@pytest.fixture
def source():
    """An advisory source on loopback that speaks OSV's interface."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):  # the name is http.server's
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            body = json.dumps({"vulns": [ADVISORY]} if asked["package"]["name"] == "idna" else {}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield ("-s", "osv", "--osv-url", f"http://127.0.0.1:{server.server_port}/query")
        server.shutdown()


@pytest.mark.slow
def test_a_known_vulnerability_is_found(tool, source):
    found, audited = dev_audit.audit(tool, PACKAGES, (source,))
    assert found == ["idna 3.6: TEST-2024-1, mended in 3.7"]
    assert audited == {"idna", "click"}
    assert dev_audit.verdict(found, audited, PACKAGES) == "1 known vulnerabilities in 2 packages"


@pytest.mark.slow
def test_an_accepted_one_is_not(tool, source, monkeypatch):
    monkeypatch.setitem(dev_audit.ACCEPTED, "TEST-2024-1", "the text never comes from outside")
    assert dev_audit.audit(tool, PACKAGES, (source,)) == ([], {"idna", "click"})


@pytest.mark.slow
def test_a_source_that_cannot_be_reached_is_no_pass(tool, capsys):
    found, audited = dev_audit.audit(tool, PACKAGES, (("-s", "osv", "--osv-url", "http://127.0.0.1:9/query"),))
    assert (found, audited) == ([], set())
    assert "cannot be had" in capsys.readouterr().err
    assert dev_audit.verdict(found, audited, PACKAGES).startswith("NOT AUDITED")


def test_a_package_that_the_source_does_not_know_is_no_pass():
    # What pip-audit prints, beside "No known vulnerabilities found", for an index without advisories.
    skipped = {"name": "click", "skip_reason": "Dependency not found on PyPI and could not be audited: click (8.1.7)"}
    known = {"name": "idna", "version": "3.6", "vulns": []}
    assert dev_audit.read(json.dumps({"dependencies": [skipped], "fixes": []})) == ([], set())
    lines, audited = dev_audit.read(json.dumps({"dependencies": [skipped, known], "fixes": []}))
    said = dev_audit.verdict(lines, audited, PACKAGES)
    assert said == "0 known vulnerabilities in 1 packages; NOT AUDITED, unknown to every source: click==8.1.7"


def test_what_is_installed_is_listed_without_local_versions():
    found = dict(each.split("==") for each in dev_audit.installed(sys.executable))
    assert {"starlette", "uvicorn", "orjson", "numpy"} <= found.keys()
    assert "bertport" not in found
    assert not [version for version in found.values() if "+" in version]


def test_the_command_fails_for_a_vulnerability_alone(tmp_path):
    # The program as dev.py calls it; in pip-audit's place one that says what it would.
    for vulns, code in (([{"id": "X-1", "fix_versions": []}], 1), ([], 0)):
        report = {"dependencies": [{"name": "click", "version": "1", "vulns": vulns}]}
        stand_in = tmp_path / "pip-audit"
        stand_in.write_text(f"#!{sys.executable}\nprint({json.dumps(report)!r})\n")
        stand_in.chmod(0o755)
        command = [sys.executable, dev_audit.__file__, str(stand_in), sys.executable]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == code, done.stderr
        assert ("X-1" in done.stderr) == bool(vulns)
