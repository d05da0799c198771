"""The files a platform reads say what the service needs, and name only settings that there are."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from streaming.commands._described import described
from streaming.settings import Settings
from tests.image import REPOSITORY, command, context, environment, final_stage, instructions

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
UNIT = (REPOSITORY / "deploy/sluice.service").read_text()
# Of Python, the system and gunicorn.
NOT_OURS = {"PATH", "HOME", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "GUNICORN_CMD_ARGS"}
# Of access, which is being built.


def compose() -> dict[str, Any]:
    return yaml.safe_load((REPOSITORY / "deploy/compose.yaml").read_text())


def unit() -> list[tuple[str, str]]:
    """Return the unit's lines in order; a name may come several times."""
    lines = [line for line in UNIT.splitlines() if "=" in line and not line.startswith("#")]
    return [(name, value) for name, _, value in (line.partition("=") for line in lines)]


def assert_are_settings(names: set[str]) -> None:
    assert names - NOT_OURS - {setting.variable for setting in described()} == set()


# Docker


def test_the_image_holds_what_runs_and_nothing_else(tmp_path: Path) -> None:
    wanted = {"app.py", "wsgi.py", "gunicorn.conf.py", "requirements.txt", "LICENSE", "static/page.js"}
    unwanted = """.env .git/config streams.db streams.db-wal tests/x.py docs/x.md requirements-dev.txt
        upstreams.toml streaming/x.db streaming/__pycache__/x.pyc static/node_modules/x.js bench/x.py
        examples/agent.py streaming/streams.db-ballast .venv/bin/python notes.txt""".split()
    for name in [*wanted, *unwanted, "streaming/web/page.py", "templates/page.html"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    shutil.copy(REPOSITORY / ".dockerignore", tmp_path)

    taken = {str(path) for path in context(tmp_path)}

    assert taken == wanted | {"streaming/web/page.py", "templates/page.html"}


def test_every_package_of_the_image_is_checked_against_its_hash() -> None:
    installs = [each.argument for each in instructions(DOCKERFILE) if "install" in each.argument]
    [pip] = [said for said in installs if said.startswith("pip ")]

    assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(pip.split())
    assert not [said for said in installs if "apt" in said]
    pinned = (REPOSITORY / "requirements.txt").read_text()
    assert len(re.findall(r"^\S+==\S+", pinned, re.M)) > 50
    assert all("--hash=sha256:" in block for block in re.split(r"\n(?=\S+==)", pinned))


def test_the_image_runs_as_a_numbered_account_that_is_not_root() -> None:
    users = [each.argument for each in final_stage(DOCKERFILE) if each.name == "USER"]

    assert [re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user) is not None for user in users] == [True]


def test_the_image_keeps_what_lasts_in_its_volume() -> None:
    stage = final_stage(DOCKERFILE)
    variables = environment(stage)
    settings = Settings.from_environ(variables)

    assert [each.argument for each in stage if each.name == "VOLUME"] == ["/data"]
    assert settings.eventlog_url.startswith("sqlite:////data/")
    assert settings.checkpoints_url.startswith("sqlite:////data/")
    assert settings.sessions_path.startswith("/data/")
    assert_are_settings(variables.keys())


def test_signals_reach_gunicorn_and_the_health_check_needs_no_shell() -> None:
    stage = final_stage(DOCKERFILE)

    assert command(stage, "CMD")[0] == "gunicorn"
    assert command(stage, "HEALTHCHECK") == ["python", "-m", "streaming", "healthcheck"]
    assert [each.argument for each in stage if each.name == "STOPSIGNAL"] == ["SIGTERM"]
    assert not [each for each in stage if each.name == "ENTRYPOINT"]


def test_the_image_downloads_nothing_by_address_and_names_no_moving_version() -> None:
    found = instructions(DOCKERFILE)

    assert not [each for each in found if each.name == "ADD"]
    for each in found:
        if each.name == "FROM":
            assert ":" in each.argument, each
            assert ":latest" not in each.argument, each


# Compose


def test_the_instances_of_compose_share_a_store_that_forgets_nothing() -> None:
    services = compose()["services"]
    instances = [services[name] for name in services if name.startswith("sluice")]

    assert len(instances) == 2
    for each in instances:
        variables = each["environment"]
        assert variables["EVENTLOG_URL"].startswith("redis://valkey:")
        assert_are_settings(variables.keys())
        # Longer than it drains, and gunicorn's own patience.
        assert int(each["stop_grace_period"].removesuffix("s")) >= Settings().drain_seconds + 7
    policy = services["valkey"]["command"]
    assert policy[policy.index("--maxmemory-policy") + 1] == "noeviction"
    assert policy[policy.index("--appendonly") + 1] == "yes"


def test_every_container_of_compose_is_confined() -> None:
    for name, service in compose()["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert not service.get("privileged"), name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name}: {port} is open to everybody"


def test_the_store_of_compose_is_reached_by_the_instances_only() -> None:
    made = compose()
    on_its_network = {name for name, each in made["services"].items() if "inside" in each["networks"]}

    assert made["networks"]["inside"]["internal"] is True
    assert made["services"]["valkey"]["networks"] == ["inside"]
    assert on_its_network == {"valkey", "sluice-1", "sluice-2"}


def test_the_files_that_compose_names_are_there() -> None:
    made = compose()
    for name, service in made["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            known = source in made["volumes"] or (REPOSITORY / "deploy" / source).is_file()
            assert known, f"{name}: {volume}"
        for other in service.get("depends_on", {}):
            assert other in made["services"], f"{name}: {other}"


# systemd and Heroku


def test_the_unit_lets_a_worker_drain_before_it_is_killed() -> None:
    said = dict(unit())

    assert int(said["TimeoutStopSec"]) >= Settings().drain_seconds + 7
    assert said["KillMode"] == "mixed"


def test_the_unit_names_settings_that_there_are() -> None:
    pairs = [pair for name, value in unit() if name == "Environment" for pair in value.split()]

    assert_are_settings({pair.partition("=")[0] for pair in pairs})


def test_the_unit_confines_the_service() -> None:
    said = dict(unit())

    for name in ("NoNewPrivileges", "DynamicUser", "PrivateTmp", "PrivateDevices", "RestrictNamespaces"):
        assert said[name] == "yes", name
    assert (said["ProtectSystem"], said["CapabilityBoundingSet"]) == ("strict", "")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_understands_every_line_of_the_unit(tmp_path: Path) -> None:
    # With programs that are there: whether /opt/sluice exists is not the question.
    text = re.sub(r"/opt/sluice/\.venv/bin/\w+", "/bin/true", UNIT).replace("=/opt/sluice\n", "=/\n")
    (tmp_path / "sluice.service").write_text(text)

    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / "sluice.service")],
        capture_output=True,
        text=True,
        timeout=60,
    )

    complaints = [line for line in checked.stderr.splitlines() if "sluice.service" in line]
    assert (checked.returncode, complaints) == (0, [])


def test_the_platforms_files_name_settings_that_there_are() -> None:
    said = json.loads((REPOSITORY / "app.json").read_text())

    assert_are_settings(said["env"].keys())
    assert (REPOSITORY / "Procfile").read_text() == "web: gunicorn wsgi:app\n"
