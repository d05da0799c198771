"""Print what the service is made of, as CycloneDX 1.6: what is pinned, and the vendored scripts."""

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ \\]+)")
_VENDORED = re.compile(r"^\| `(?P<file>\S+)` \| (?P<version>[\d.]+).*\| `(?P<package>\S+)`, `", re.M)


def document(pinned: str, vendored: str, project: dict[str, Any]) -> dict[str, Any]:
    """Return the document; the same for the same files, so that two of them can be compared."""
    components = [_python(block) for block in re.split(r"\n(?=\S)", pinned) if _PIN.match(block)]
    components += [_script(found) for found in _VENDORED.finditer(vendored)]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": project["name"],
                "name": project["name"],
                "version": project["version"],
                "description": project["description"],
                "licenses": [{"license": {"id": "MIT"}}],
            }
        },
        "components": components,
    }


def _python(block: str) -> dict[str, Any]:
    pin = _PIN.match(block)
    assert pin
    purl = f"pkg:pypi/{pin['name'].lower().replace('_', '-')}@{pin['version']}"
    # Several files may be installed, by platform: any of these hashes is one of them.
    hashes = [
        {"alg": "SHA-256", "content": each} for each in re.findall(r"--hash=sha256:([0-9a-f]{64})", block)
    ]
    files = {"type": "distribution", "url": f"https://pypi.org/project/{pin['name']}/", "hashes": hashes}
    return {
        "type": "library",
        "bom-ref": purl,
        "name": pin["name"],
        "version": pin["version"],
        "purl": purl,
        "externalReferences": [files],
    }


def _script(found: re.Match[str]) -> dict[str, Any]:
    purl = f"pkg:npm/{found['package'].replace('@', '%40')}@{found['version']}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": found["package"],
        "version": found["version"],
        "purl": purl,
        "properties": [{"name": "sluice:file", "value": f"static/vendor/{found['file']}"}],
    }


def main() -> None:
    made = document(
        (ROOT / "requirements.txt").read_text(),
        (ROOT / "static/vendor/README.md").read_text(),
        tomllib.loads((ROOT / "pyproject.toml").read_text())["project"],
    )
    json.dump(made, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
