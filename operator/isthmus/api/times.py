"""Times as Kubernetes writes them (RFC 3339, UTC) and as seconds since the epoch."""

from datetime import UTC, datetime


def rfc3339(seconds: float) -> str:
    """Epoch seconds to `2026-11-21T05:31:00Z`; fractions are kept only where there are any."""
    moment = datetime.fromtimestamp(seconds, tz=UTC)
    text = moment.isoformat(timespec="microseconds" if moment.microsecond else "seconds")
    return text.replace("+00:00", "Z")


def epoch(text: str | None) -> float | None:
    """RFC 3339 to epoch seconds; None for None and for what is no time."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
