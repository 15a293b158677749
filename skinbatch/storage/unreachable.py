"""Explain why an S3 server does not answer, and which setting to change."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import botocore.exceptions as bx

WAY_OUT = "set AWS_ENDPOINT_URL, or endpoint_url in [storage], to where your store listens"


def reason(error: Exception) -> str:
    """Return in one sentence what failed between this machine and a server.

    The sentence does not name the object. error: raised by botocore or urllib3.
    """
    where = _server(error)
    details: dict[str, Any] = getattr(error, "kwargs", {})
    text = f"{error} {details.get('error', '')}"
    if isinstance(error, bx.SSLError):
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return (
                f"the certificate of {where} is not trusted; name its authority with AWS_CA_BUNDLE"
            )
        return f"{where} does not speak TLS; if it speaks plain HTTP, write http:// instead of https://"
    if isinstance(error, bx.ProxyConnectionError):
        return f"the proxy in HTTPS_PROXY or HTTP_PROXY cannot be reached ({where})"
    if isinstance(error, bx.ConnectTimeoutError):
        return f"{where} does not answer (a wrong address or port, or a firewall)"
    if isinstance(error, bx.ReadTimeoutError):
        return f"{where} has accepted a request and sends no answer"
    if isinstance(error, bx.EndpointConnectionError):
        if any(word in text for word in ("resolve", "Name or service", "nodename")):
            return f"{where}: there is no host of this name"
        if "unreachable" in text.lower() or "No route" in text:
            return f"{where}: no network route leads to this host"
        return f"{where} refuses the connection: nothing listens there"
    if isinstance(error, bx.ConnectionClosedError):
        return f"{where} closes the connection without an answer; if it speaks TLS, write https:// instead of http://"
    return f"the connection to {where} was lost ({type(error).__name__})"


def is_unreachable(error: Exception) -> bool:
    """Return whether a request got no answer at all."""
    return isinstance(error, bx.HTTPClientError | bx.ConnectionError)


def _server(error: Exception) -> str:
    """Return `http://host:port` of the server, or "the store" if the error does not name it."""
    url = (
        getattr(error, "kwargs", {}).get("endpoint_url")
        or getattr(error, "kwargs", {}).get("proxy_url")
        or ""
    )
    parts = urlsplit(str(url))
    return (
        f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
        if parts.hostname
        else "the store"
    )
