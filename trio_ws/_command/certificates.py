"""Certificates from files, and the one line that the user is shown if they cannot be used."""

from __future__ import annotations

import ssl

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
