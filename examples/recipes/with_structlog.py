"""A server whose log is made by structlog, with the lines of trio_ws. Needs: pip install structlog

All of it goes to the standard error, as lines of JSON with the connection's id.
"""

import argparse
import logging

import structlog
import trio

from trio_ws import WebSocket, WebSocketServer, serve_websocket


def configure_logging() -> None:
    ours: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
    ]
    structlog.configure(
        processors=[*ours, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            # For what is logged by the standard library, as trio_ws does. ExtraAdder takes over
            # connection_id.
            foreign_pre_chain=[*ours, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])


async def echo(ws: WebSocket) -> None:
    structlog.contextvars.bind_contextvars(connection_id=ws.id)  # for all that this task logs
    async for message in ws:
        structlog.get_logger().info("echoes", length=len(message))
        await ws.send(message)


async def main(port: int) -> None:
    async with trio.open_nursery() as nursery:
        server: WebSocketServer = await nursery.start(serve_websocket, echo, "localhost", port)
        print(f"Serving on {server.urls[0]} (Ctrl-C ends it)", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8765, help="0 for a free one")
    configure_logging()
    try:
        trio.run(main, parser.parse_args().port)
    except* KeyboardInterrupt:
        pass
