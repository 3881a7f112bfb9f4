"""Certificates from files, and the one line that the user is shown if they cannot be used.

A server reads its files again on SIGHUP. Connections that are open keep what they agreed on.
"""

from __future__ import annotations

import logging
import signal
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, final

import trio

from .._nursery import open_bare_nursery
from .._reasons import reason_of
from .exits import CommandFailed
from .systemd import ServiceManager

logger = logging.getLogger("trio_ws.serve")

#: Windows has no such signal.
HAS_SIGHUP: Final = hasattr(signal, "SIGHUP")


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


@asynccontextmanager
async def renewed_on_sighup(
    files: ServerFiles, context: ssl.SSLContext, manager: ServiceManager
) -> AsyncGenerator[None, None]:
    """Read the files again on each SIGHUP, for the handshakes of `context` from then on.

    If a file cannot be used, that is logged in one line, and nothing changes.
    """
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        async with open_bare_nursery() as nursery:
            nursery.start_soon(_renew, files, context, signals, manager)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()


async def _renew(
    files: ServerFiles,
    context: ssl.SSLContext,
    signals: AsyncIterator[int],
    manager: ServiceManager,
) -> None:
    async for _ in signals:
        with manager.reloading():
            try:
                # In a thread, because OpenSSL asks at the terminal for the passphrase of a key.
                renewed = await trio.to_thread.run_sync(files.load, abandon_on_cancel=True)
            except CommandFailed as exc:
                logger.error(  # noqa: TRY400 - a traceback would lead to nothing of the user's
                    "SIGHUP: %s; the certificates in use stay", exc
                )
            else:
                _present(renewed, context)
                logger.info("SIGHUP: new connections get the certificates of now")


def _present(renewed: ssl.SSLContext, context: ssl.SSLContext) -> None:
    """Have handshakes that begin with `context` go on with `renewed`.

    `load_cert_chain` could change `context` itself. But it reads the files one after the other, and
    where the second is wrong, the first is in use already: a certificate without its key.
    """

    def choose(tls: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        tls.context = renewed

    context.sni_callback = choose  # it is called for clients that name no host, too


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
