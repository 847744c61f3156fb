"""Secrets of every shape that may never show, and where to look for them.

Whoever reads a Secret tells of it in words of its own. Values that cannot be used are the ones that
show: libraries quote what they refuse. So each place that reads one is tested with all shapes.
"""

import base64
import urllib.parse

CANARY = "cAnArY-7f3a"

SHAPES: dict[str, bytes] = {
    "PEM": f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----\n".encode(),
    "two lines": f"{CANARY}\n{CANARY}".encode(),
    "NUL": f"{CANARY}\0x".encode(),
    "CRLF and a header": f"{CANARY}\r\nX-Other: {CANARY}".encode(),
    "kubeconfig": f"users:\n- user:\n    token: {CANARY}\n".encode(),
    "JSON": b'{"auths": {"r": {"auth": "%s"}}}\n{}' % CANARY.encode(),
    "not ASCII": f"{CANARY}é".encode(),
    "lone surrogate": CANARY.encode() + "\ud800".encode(errors="surrogatepass"),
    "binary": CANARY.encode() + bytes(range(128, 256)),
    "ESC": f"{CANARY}\x1b[31m".encode(),
    "quote": f'{CANARY}"\n'.encode() * 2,
    "huge": CANARY.encode() * 90_000,
}
"""None of them can be an API key, a token or a header."""

WORD = f"{CANARY}-0123456789abcdef"
"""One that can."""


def assert_unseen(*texts: object) -> None:
    """The canary stands in none of them, whole or in part, nor in another coding."""
    text = "\n".join(str(each) for each in texts)
    assert CANARY not in text, text[:500]
    assert CANARY.encode().hex() not in text.lower(), text[:500]
    assert urllib.parse.quote(CANARY, safe="") not in text
    for offset in range(3):
        coded = base64.b64encode(b"." * offset + CANARY.encode()).decode()
        inner = coded[4 * (offset > 0) : -4]  # what does not depend on its neighbours
        assert inner not in text, text[:500]
