"""Makes throw-away certificates, so that recorded https pages can be served inside a sandbox. Uses `openssl`."""

import shutil
import subprocess
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory

OPENSSL_TIMEOUT_S = 10.0


def self_signed(hosts: tuple[str, ...]) -> tuple[str, str]:
    """Return certificate and key as PEM for exactly these hosts, valid for a day; two empty texts without openssl."""
    program = shutil.which("openssl")
    if program is None or not hosts:
        return "", ""
    with TemporaryDirectory(prefix="lumina-") as folder:
        key, certificate = Path(folder, "key.pem"), Path(folder, "certificate.pem")
        command = [program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-days", "1", "-subj", "/CN=recorded pages", "-keyout", str(key), "-out", str(certificate)]
        command += ["-addext", "subjectAltName=" + ",".join(map(_alternative, hosts))]
        done = subprocess.run(command, capture_output=True, timeout=OPENSSL_TIMEOUT_S, check=False)
        if done.returncode != 0:
            return "", ""
        return certificate.read_text(), key.read_text()


def _alternative(host: str) -> str:
    """Return a subject alternative name for a host name or an address."""
    try:
        return f"IP:{ip_address(host)}"
    except ValueError:
        return f"DNS:{host}"
