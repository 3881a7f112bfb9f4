"""Certificates from files, and the one line that the user is shown if they cannot be used."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import final

from .._reasons import reason_of
from .exits import CommandFailed


def load_certificate(context: ssl.SSLContext, certfile: str, keyfile: str | None) -> None:
    """Have `context` present this certificate chain.

    Raises:
        CommandFailed: the files cannot be read, or are no certificate with its key.
    """
    try:
        context.load_cert_chain(certfile, keyfile)
    except OSError as exc:  # ssl.SSLError is one
        files = certfile if keyfile is None else f"{certfile} with {keyfile}"
        raise CommandFailed(f"cannot use the certificate {files}: {reason_of(exc)}") from None


def load_authorities(context: ssl.SSLContext, cafile: str) -> None:
    """Have `context` trust these authorities, and ask each client for a certificate.

    Raises:
        CommandFailed: the file cannot be read, or has no certificate in it.
    """
    try:
        context.load_verify_locations(cafile)
    except OSError as exc:
        raise CommandFailed(f"cannot use the authorities in {cafile}: {reason_of(exc)}") from None
    context.verify_mode = ssl.CERT_REQUIRED


@final
@dataclass(frozen=True, kw_only=True)
class ServerFiles:
    """The files of a server.

    Attributes:
        certfile: its certificate, and those between it and its authority.
        keyfile: the private key, if it is not in the same file.
        client_ca: the authorities of clients. With it, each client has to show a certificate.
    """

    certfile: str
    keyfile: str | None
    client_ca: str | None

    def load(self) -> ssl.SSLContext:
        """A context made of the files as they are now.

        Raises:
            CommandFailed: one of them cannot be used.
        """
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        load_certificate(context, self.certfile, self.keyfile)
        if self.client_ca is not None:
            load_authorities(context, self.client_ca)
        return context


def trust(cafile: str | None, *, insecure: bool) -> ssl.SSLContext:
    """A client's context that trusts these authorities, or the system's, or anybody.

    Raises:
        CommandFailed: the file cannot be read, or has no certificate in it.
    """
    try:
        context = ssl.create_default_context(cafile=cafile)
    except OSError as exc:
        raise CommandFailed(f"cannot use the authorities in {cafile}: {reason_of(exc)}") from None
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
