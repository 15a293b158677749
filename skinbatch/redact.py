"""Remove credentials and signatures from text before it is logged or stored.

This covers passwords in addresses, the values of signed query strings, and the secrets in this
process's environment.
"""

from __future__ import annotations

import os
import re

_ENVIRONMENT = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")
_SHORTEST = 8
_USER = re.compile(
    r"(?<=://)(?:[^/\s\"'<>]*@"
    # A password may hold a slash, which would end the host's name. A port before a path with an @
    # is not a password.
    r"|[^/@:\[\s\"'<>]{0,256}:(?![0-9]{0,5}/)[^@\s\"'<>]{0,256}@)"
)
# What precedes a name in a query string, also if the address is quoted within another address or in
# JSON.
_MARK = r"(?:[?&;#]|%(?:25){0,3}(?:26|3f|3b|23)|\\(?:u00|x)(?:26|3f|3b|23))"
_IS = r"(?:=|%(?:25){0,3}3d|\\(?:u00|x)3d)"
# The quantifiers are possessive, because a backtracking one would keep 145 bytes for each
# character.
_VALUE = r"(?:[^&\s\"'<>\\%]++|%(?!(?:25){0,3}26))*+"
_UNMISTAKABLE = (
    r"x-(?:amz|goog|oss|cos)-(?:signature|credential|security-token)|(?:aws|google|oss)access(?:key)?id|key-pair-id"
    r"|aws_(?:secret_access_key|session_token|security_token)"
)
_IN_A_QUERY = (
    r"x-(?:amz|goog|oss|cos)-[a-z0-9-]{1,64}|signature|sig|policy|(?:access_?|security_?|auth_?|session_?)?token|expires"
    r"|api_?key|jwt|hdn(?:ea|ts)"
)
_SIGNED = re.compile(rf"((?:{_MARK}(?:{_IN_A_QUERY})|{_UNMISTAKABLE}){_IS}){_VALUE}", re.IGNORECASE)
# Quotation marks, with backslashes in JSON, or in JSON within JSON.
_QUOTED = r"\\*+[\"']?"
_HEADER = re.compile(
    # An Authorization header, and headers in a table of JSON or Python.
    r"((?<![a-z0-9_])(?:signature|credential)\s?=\s?)[a-z0-9+/=%_.~-]{16,}"
    rf"|((?:{_UNMISTAKABLE}){_QUOTED}\s?[:=]\s?b?{_QUOTED}){_VALUE}",
    re.IGNORECASE,
)
_OF_HEADERS = ("signature", "credential", "access", "token", "key-pair")
# Narrower than _SIGNED: the name of an object may contain a `;` or a `#`.
_SIGNED_ADDRESS = re.compile(rf"[?&](?:{_IN_A_QUERY})=|(?:{_UNMISTAKABLE}){_IS}", re.IGNORECASE)
_QUESTION = re.compile(r"\?|%(?:25){0,3}3f|\\(?:u00|x)3f", re.IGNORECASE)

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]{4,}")


def redacted(text: str) -> str:
    """Return `text` with credentials replaced by `…`.

    These are passwords in addresses, values of signed query strings (S3, CloudFront, Google, Azure,
    and other kinds of tokens) and of headers with the same content, and the secrets in this
    process's environment. Time and memory are proportional to the length of any text.
    """
    if "://" in text:
        text = _USER.sub("…@", text)
    if "=" in text or "3d" in text or "3D" in text:
        text = _SIGNED.sub(r"\1…", text)
    lower = text.lower()
    if any(word in lower for word in _OF_HEADERS):
        text = _HEADER.sub(r"\1\2…", text)
    for name in _ENVIRONMENT:
        secret = os.environ.get(
            name, ""
        ).strip()  # text may contain a trailing line break in escaped form
        if len(secret) >= _SHORTEST and secret in text:
            text = text.replace(secret, "…")
    return text


def is_signed(uri: str) -> bool:
    """Return whether an address has a signature in its query string."""
    return _SIGNED_ADDRESS.search(uri) is not None


def unsigned(uri: str) -> str:
    """Return an address without its query string if that is a signature, else unchanged."""
    query = _QUESTION.search(uri) if is_signed(uri) else None
    return uri if query is None else uri[: query.start()]


def without_addresses(text: str) -> str:
    """Return `text` without the memory addresses of Python objects, which differ from run to run.

    Example:
        >>> without_addresses("cannot identify image file <_io.BytesIO object at 0x7f3a5c0>")
        'cannot identify image file <_io.BytesIO object>'
    """
    return _ADDRESS.sub("", text)
