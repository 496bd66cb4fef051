"""List what is in /opt/kintsugi (CycloneDX) and what is known against it (pip-audit), where an image is built.

``audit.py enforce`` fails the build for a known vulnerability, ``report`` prints it, ``skip`` asks nobody and
leaves a file that says so. A service that knows nothing of a package is no clean bill: only torch's own builds,
which lie on no index but torch's, may be unknown.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TOOLS = Path("/opt/tools/bin")
ENVIRONMENT = Path("/opt/kintsugi")
TARGET = Path("/audit")
AUTHORITIES = Path("/run/secrets/ca")
UNLISTED = {"torch"}


def bill_of_materials() -> None:
    """Write ``sbom.json``."""
    command = [TOOLS / "cyclonedx-py", "environment", ENVIRONMENT / "bin" / "python"]
    subprocess.run([*map(str, command), "--output-reproducible", "--output-file", f"{TARGET}/sbom.json"], check=True)


def vulnerabilities() -> list[dict[str, Any]]:
    """Ask pip-audit's service; returns a row for each package. Raises ``SystemExit`` where it does not answer."""
    output = TARGET / "vulnerabilities.json"
    environment = os.environ | ({"REQUESTS_CA_BUNDLE": str(AUTHORITIES)} if AUTHORITIES.exists() else {})
    command = [f"{TOOLS}/pip-audit", "--path", f"{ENVIRONMENT}/lib/python3.11/site-packages"]
    options = ["--desc", "off", "--progress-spinner", "off", "--format", "json", "--output", str(output)]
    subprocess.run([*command, *options], env=environment)
    if not output.exists():
        raise SystemExit("pip-audit did not finish; where it cannot reach its service, build with AUDIT=skip")
    packages: list[dict[str, Any]] = json.loads(output.read_text())["dependencies"]
    unknown = {row["name"] for row in packages if "skip_reason" in row} - UNLISTED
    if unknown:
        raise SystemExit(
            f"pip-audit's service knows nothing of {', '.join(sorted(unknown))}; where no other can be reached, "
            "build with AUDIT=skip"
        )
    return packages


def main(mode: str) -> None:
    """Audit by ``mode``; raises ``SystemExit`` where the build must fail."""
    if mode not in ("enforce", "report", "skip"):
        raise SystemExit(f"AUDIT={mode} is unknown; it is enforce, report or skip")
    TARGET.mkdir(exist_ok=True)
    bill_of_materials()
    if mode == "skip":
        (TARGET / "AUDIT-SKIPPED").write_text("built with AUDIT=skip: nobody was asked about vulnerabilities\n")
        print("AUDIT=skip: nobody was asked about known vulnerabilities")
        return
    found = [(row, known) for row in vulnerabilities() for known in row.get("vulns", [])]
    for row, known in found:
        print(f"{row['name']} {row['version']}: {known['id']}, mended in {', '.join(known['fix_versions']) or 'none'}")
    if found and mode == "enforce":
        raise SystemExit(f"{len(found)} known vulnerabilities; AUDIT=report builds all the same")


if __name__ == "__main__":
    main(sys.argv[1])
