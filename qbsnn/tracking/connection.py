"""Whether a server can be used: its key and its port, asked for without a prompt and without a long wait."""

from __future__ import annotations

import socket
import threading
import urllib.request
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


def missing_credentials(base_url: str) -> str | None:
    """Why there are no credentials for ``base_url`` (environment, netrc, wandb's settings), or ``None``."""
    import wandb

    try:
        from wandb.sdk.lib import wbauth
    except ImportError:
        return f"wandb {wandb.__version__} is too old to be asked for its key; 0.31 works"
    try:
        found = wbauth.authenticate_session(host=base_url, source="qbsnn", prompt=False, update_session=False)
    except (wandb.Error, ValueError) as error:
        return f"the credentials cannot be used: {error}"
    return None if found else f"no API key for {base_url}"


def unreachable(base_url: str, timeout: float, proxies: dict[str, str | None] | None = None) -> str | None:
    """Why no TCP connection to ``base_url``, or to the proxy in force for it, opens in ``timeout`` s, or ``None``.

    ``proxies`` by scheme go before those of the environment.
    """
    target = urlsplit(base_url)
    if target.hostname is None:
        return f"{base_url} names no server"
    known = urllib.request.getproxies_environment()
    known.update({scheme: url for scheme, url in (proxies or {}).items() if url})
    proxy = known.get(target.scheme)
    # wandb's service is a Go program, and Go never sends loopback addresses through a proxy
    loopback = target.hostname in ("localhost", "::1") or target.hostname.startswith("127.")
    if proxy and not loopback and not urllib.request.proxy_bypass(target.hostname):
        target = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        if target.hostname is None:
            return f"the proxy {proxy!r} names no server"
    host, port = target.hostname, target.port or _DEFAULT_PORTS.get(target.scheme, 443)
    answer: list[str | None] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=timeout).close()
            answer.append(None)
        except OSError as error:
            answer.append(f"no connection to {host}:{port}: {error}")

    # in a thread, because the time-out of create_connection does not cover the look-up of the name
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(timeout + 0.1)
    return answer[0] if answer else f"no connection to {host}:{port} within {timeout:g} s"
