"""Suggestions for an option that does not exist: the nearest name, or ours for another library's.

This module owns the names that other WebSocket libraries and servers have for our options. It knows
our options only as text to put in their place.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

#: Our name, and the names of the same thing elsewhere.
ELSEWHERE = {
    "keep_alive_timeout": "keepalive_timeout timeout_keep_alive",  # of servers: before ping_timeout
    "max_message_size": "max_size max_msg_size max_payload max_payload_size max_message_length "
    "ws_max_size websocket_max_message_size max_frame_size",
    "max_queued_messages": "max_queue message_queue_size ws_max_queue queue_size",
    "max_queued_bytes": "read_limit read_bufsize",
    "max_send_buffer": "write_limit writer_limit max_write_buffer_size",
    "open_timeout": "timeout connect_timeout connection_timeout handshake_timeout",
    "close_timeout": "disconnect_timeout closing_timeout",
    "ping_interval": "heartbeat heartbeat_interval keepalive keepalive_interval ws_ping_interval "
    "websocket_ping_interval",
    "ping_timeout": "pong_timeout heartbeat_timeout keepalive_timeout ws_ping_timeout "
    "websocket_ping_timeout",
    "compression": "compress deflate permessage_deflate per_message_deflate ws_per_message_deflate "
    "compression_options extensions",
    "subprotocols": "subprotocol protocol protocols select_subprotocol",
    "headers": "extra_headers additional_headers header request_headers response_headers",
    "user_agent": "user_agent_header",
    "hosts": "allowed_hosts trusted_hosts server_names",
    "origins": "allowed_origins allow_origins check_origin cors_allowed_origins",
    "cookies": "cookie cookie_jar cookiejar jar",
    "ssl_context": "ssl tls sslopt ssl_options tls_context",
    "server_hostname": "server_name hostname sni assert_hostname",
    "path": "unix uds unix_path unix_socket socket_path",
    "max_redirects": "redirects follow_redirects allow_redirects",
    "proxy": "proxies http_proxy https_proxy proxy_url http_proxy_host",
    "proxy_ssl_context": "proxy_ssl",
    "local_address": "local_addr source_address",
    "process_request": "before_request on_request authenticate",
    "on_handler_error": "on_error error_handler",
    "trusted_proxies": "forwarded_allow_ips proxy_headers trust_proxy",
    "grace_period": "shutdown_timeout graceful_timeout timeout_graceful_shutdown",
    "max_connections": "limit_concurrency max_clients connection_limit",
    "max_body_size": "client_max_size max_request_size max_body",
    "idle_timeout": "receive_timeout inactivity_timeout",
    "min_delay": "initial_delay backoff_min min_backoff base_delay reconnect_delay "
    "reconnect_interval minreconnectiondelay reconnectiondelay",
    "max_delay": "backoff_max max_backoff max_reconnect_delay max_reconnect_interval "
    "maxreconnectiondelay reconnectiondelaymax",
    "stream_length": "maxlen stream_maxlen",
    "stream_ttl": "ttl expire",
}


def what_was_meant(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that the caller probably meant by `name`, which is not among them."""
    known = set(names)
    for ours, others in ELSEWHERE.items():
        if ours in known and name.lower() in others.split():
            return ours
    return next(iter(get_close_matches(name.lower(), sorted(known), 1)), None)
