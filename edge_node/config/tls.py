"""TLS contexts from the configuration: TLS 1.2 and later with the suites of BCP 195 (RFC 9325; PS3.15 B.12)."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from edge_node.config.schema import PeerEntry, Tls
from edge_node.domain.errors import Stop
from edge_node.domain.worklist import Peer, PeerTls

# Of TLS 1.2 only forward secrecy with authenticated encryption; every suite of TLS 1.3 has both.
_SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM"


def server_context(section: str, cert: Path | None, key: Path | None, client_ca: Path | None) -> ssl.SSLContext:
    """The context of a listener of ours; with `client_ca` a client must show a certificate that it signed.

    `section` begins the messages. Raises Stop: ``tls.cert-unusable``, ``tls.ca-unusable``.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context)
    _load_pair(context, section, cert, key)
    if client_ca is not None:
        _load_ca(context, section, client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def listener_context(tls: Tls) -> ssl.SSLContext:
    """The context of the DICOM listener. Raises as `server_context`."""
    return server_context("[tls]", tls.cert, tls.key, tls.client_ca)


def client_context(tls: PeerTls) -> ssl.SSLContext:
    """The context for associations to a peer; its certificate must be valid for `tls.name`.

    Raises Stop: ``tls.cert-unusable``, ``tls.ca-unusable``.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context)
    if tls.ca_file is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _load_ca(context, "[peers]", tls.ca_file)
    if tls.client_cert is not None:
        _load_pair(context, "[peers]", tls.client_cert, tls.client_key)
    return context


def tls_arguments(peer: Peer) -> tuple[ssl.SSLContext, str] | None:
    """What pynetdicom's `associate` takes as `tls_args`; None for plain DICOM."""
    return (client_context(peer.tls), peer.tls.name) if peer.tls else None


def tls_problem(peer: Peer, timeout_s: float) -> str:
    """Why no TLS connection to the peer comes about, for people; "" if one does, or if nothing listens there."""
    arguments = tls_arguments(peer)
    if arguments is None:
        return ""
    context, name = arguments
    try:
        connection = socket.create_connection((peer.host, peer.port), timeout_s)
    except OSError:
        return ""
    with connection:
        try:
            context.wrap_socket(connection, server_hostname=name).close()
        except ssl.SSLCertVerificationError as error:
            return f"its certificate is not accepted: {error.verify_message}"
        except OSError as error:
            reason = str(getattr(error, "reason", None) or "no answer to it")
            return reason.replace("_", " ").lower()
    return ""


def peer_of(entry: PeerEntry) -> Peer:
    """A configured peer in the words of the domain."""
    tls = None
    if entry.tls:
        tls = PeerTls(entry.tls_name or entry.host, entry.ca_file, entry.client_cert, entry.client_key)
    return Peer(entry.ae_title, entry.host, entry.port, tls)


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_SUITES)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION


def _load_pair(context: ssl.SSLContext, section: str, cert: Path | None, key: Path | None) -> None:
    if cert is None or key is None:
        raise Stop(
            "tls.cert-unusable", f"{section}: certificate and key are both needed", hint="edge-node config check"
        )
    try:
        # an encrypted key must fail, not ask on a terminal that nobody looks at
        context.load_cert_chain(cert, key, password=lambda: b"")
    except (ssl.SSLError, OSError) as error:
        raise Stop(
            "tls.cert-unusable",
            f"{section}: {cert} with {key}: {_why(error)}",
            hint="PEM files, readable for the node's user, the key without a passphrase and of this certificate",
        ) from None


def _load_ca(context: ssl.SSLContext, section: str, path: Path) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except (ssl.SSLError, OSError) as error:
        raise Stop(
            "tls.ca-unusable", f"{section}: {path}: {_why(error)}", hint="a PEM file with the CA's certificate"
        ) from None


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        words = {"KEY_VALUES_MISMATCH": "the key is not that of the certificate"}
        return words.get(error.reason or "", "not a certificate or key that OpenSSL can use")
    return str(error.strerror)
