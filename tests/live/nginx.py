"""A real nginx in front of a service: with a configuration of the test's own, or the one in deploy/."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.live.service import REPOSITORY, free_port, wait_until

DEPLOYED = REPOSITORY / "deploy" / "nginx.conf"
START_SECONDS = 10.0

_MAIN = """
daemon off;
master_process off;
error_log {folder}/error.log;
pid {folder}/nginx.pid;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""

_SITE = """
server {{
    listen 127.0.0.1:{port};
    {in_server}
    location / {{
        proxy_pass http://127.0.0.1:{service_port};
        {in_location}
    }}
}}
"""


def find_nginx() -> str:
    """Return nginx's program; skips the test where there is none."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    return found


class Nginx:
    """Use it as a context manager; it runs as who runs the tests, with its files in ``folder``."""

    def __init__(self, folder: Path, port: int, url: str, site: str) -> None:
        self.url = url
        self.port = port
        self._folder = folder
        self._program = find_nginx()
        folder.mkdir(exist_ok=True)
        (folder / "site.conf").write_text(site)
        (folder / "nginx.conf").write_text(_MAIN.format(folder=folder))
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def with_directives(
        cls, folder: Path, service_port: int, in_location: str, in_server: str = ""
    ) -> "Nginx":
        """Return one that passes everything on, with these directives besides."""
        port = free_port()
        site = _SITE.format(
            port=port, service_port=service_port, in_location=in_location, in_server=in_server
        )
        return cls(folder, port, f"http://127.0.0.1:{port}", site)

    @classmethod
    def as_deployed(cls, folder: Path, service_port: int) -> "Nginx":
        """Return one with the configuration people are given: only names, ports and files are changed."""
        folder.mkdir(exist_ok=True)
        port, plain_port = free_port(), free_port()
        make_certificate(folder)
        site = DEPLOYED.read_text()
        for old, new in {
            "listen 80;": f"listen 127.0.0.1:{plain_port};",
            "listen 443 ssl http2;": f"listen 127.0.0.1:{port} ssl http2;",
            "server 127.0.0.1:8000;": f"server 127.0.0.1:{service_port};",
            "server_name chat.example.org;": "server_name localhost;",
            "/etc/ssl/sluice/": f"{folder}/",
            "/var/log/nginx/sluice.log": f"{folder}/access.log",
        }.items():
            assert old in site, f"deploy/nginx.conf has no {old!r} any more"
            site = site.replace(old, new)
        return cls(folder, port, f"https://localhost:{port}", site)

    def check(self) -> str:
        """Return what ``nginx -t`` says; fails when it refuses the configuration."""
        done = subprocess.run(
            [*self._command(), "-t"], capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    def __enter__(self) -> "Nginx":
        self._process = subprocess.Popen(
            self._command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        pid_file = self._folder / "nginx.pid"
        try:
            wait_until(pid_file.exists, START_SECONDS, f"nginx runs: {self.error_log()}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)

    def error_log(self) -> str:
        path = self._folder / "error.log"
        return path.read_text() if path.exists() else ""

    def _command(self) -> list[str]:
        return [
            self._program,
            "-p",
            str(self._folder),
            "-c",
            str(self._folder / "nginx.conf"),
            "-e",
            str(self._folder / "error.log"),
        ]


def make_certificate(folder: Path) -> None:
    """Write ``chain.pem`` and ``key.pem`` for ``localhost``, signed by themselves."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed, which makes the certificate")
    subprocess.run(
        [
            *(program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "chain.pem"), "-days", "90"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
