"""Texts without what opens doors: passwords in addresses, what signed addresses carry, this process's own secrets."""

from __future__ import annotations

import os
import re

_ENVIRONMENT = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")
_SHORTEST = 8
_USER = re.compile(r"([a-z][a-z0-9+.-]*://)[^/@\s\"'<>]+@", re.IGNORECASE)
_SIGNED = re.compile(
    r"([?&](?:x-(?:amz|goog|oss|cos)-[a-z0-9-]+|awsaccesskeyid|googleaccessid|ossaccesskeyid|signature|sig|policy|key-pair-id"
    r"|(?:access_?|security_?|auth_?|session_?)?token|expires)=)[^&\s\"'<>\\]*",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """`text` with `…` in the place of passwords in addresses, of the values of signed query strings (S3, CloudFront, Google,
    Azure, and what else is called a token), and of the secrets in this process's environment."""
    if "://" in text:
        text = _USER.sub(r"\1…@", text)
    if "=" in text:
        text = _SIGNED.sub(r"\1…", text)
    for name in _ENVIRONMENT:
        secret = os.environ.get(name, "")
        if len(secret) >= _SHORTEST and secret in text:
            text = text.replace(secret, "…")
    return text


def is_signed(uri: str) -> bool:
    """Its query string is what lets it be read."""
    return _SIGNED.search(uri) is not None


def unsigned(uri: str) -> str:
    """The address without its query string where that is a signature, else as it is."""
    return uri[: uri.index("?")] if is_signed(uri) and "?" in uri else uri
