"""What posting needs besides urllib3: the proxy of the environment, and what Retry-After says."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

if TYPE_CHECKING:
    from urllib3 import PoolManager

__all__ = ["opened_pool", "retry_after_s"]


def opened_pool(url: str, timeout_s: float) -> "PoolManager":
    """What opens connections to `url`, through ``HTTPS_PROXY`` or ``HTTP_PROXY`` unless ``NO_PROXY`` names the host.

    Connecting, and each wait for an answer, may take `timeout_s` seconds. Opens nothing yet.

    Raises:
        ValueError: the proxy is none that urllib3 speaks to.

    """
    import urllib3

    target = urlsplit(url)
    timeout = urllib3.Timeout(connect=timeout_s, read=timeout_s)
    proxies = getproxies()
    proxy = proxies.get(target.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(target.netloc.rpartition("@")[2]):
        return urllib3.PoolManager(timeout=timeout, maxsize=1)
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        address = urlsplit(proxy)
        known = f"{unquote(address.username)}:{unquote(address.password or '')}" if address.username else None
        return urllib3.ProxyManager(
            address._replace(netloc=address.netloc.rpartition("@")[2]).geturl(),
            timeout=timeout,
            maxsize=1,
            proxy_headers=urllib3.make_headers(proxy_basic_auth=known) if known else None,
        )
    except (ValueError, urllib3.exceptions.HTTPError):
        pass
    # Its text would quote the proxy's password.
    raise ValueError(f"{target.scheme.upper()}_PROXY: expected a proxy such as http://host:port; SOCKS is not spoken")


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How long the server asks us to wait, in seconds, from ``Retry-After``; None where it says nothing of sense.

    A date is measured against the server's own clock, which stands in ``Date``, else against ours.
    """
    asked = headers.get("Retry-After", "").strip()
    if asked.isascii() and asked.isdigit():
        seconds = float(asked[:20])
        return seconds if math.isfinite(seconds) else None
    until = _date(asked)
    if until is None:
        return None
    now = _date(headers.get("Date", "")) or datetime.now(UTC)
    return max(0.0, (until - now).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        read = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return read.replace(tzinfo=UTC) if read.tzinfo is None else read
