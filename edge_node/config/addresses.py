"""Web addresses of other systems: what may stand in one, and which hosts are this machine."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

_LOCAL_HOSTS = ("localhost", "ip6-localhost")


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, is this machine and nobody else."""
    name = host.rstrip(".")
    if name in _LOCAL_HOSTS:
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def address_fault(url: str) -> str:
    """Why `url` cannot be where patient data is sent, "" if it can; read after the option's name.

    The address is never repeated: a password may have been put into it.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is not a valid address"
    if parts.scheme not in ("http", "https") or not host:
        return "must be an address that begins with https:// and names a host"
    if parts.username is not None or parts.password is not None:
        return "must not carry a user or password; use user and password_file"
    if parts.query or parts.fragment:
        return "must not carry a query or a fragment"
    if parts.scheme == "http" and not is_loopback(host):
        return (
            "http:// would send studies unencrypted over the network; use https://,"
            " or end the encrypted connection in a proxy on this machine and name http://127.0.0.1"
        )
    return ""
