"""Which addresses belong to this machine or to its network.

Servers there trust whoever can reach them. An index from elsewhere must not send our requests to them.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

_TRANSLATED = IPv6Network("64:ff9b::/96")  # NAT64: the last four bytes are an IPv4 address


def is_near(address: str) -> bool:
    """Whether an IP address is loopback, private, link-local or otherwise not one of the open network."""
    ip = ip_address(address.partition("%")[0])  # %eth0: the scope of a link-local address
    if isinstance(ip, IPv6Address):
        ip = ip.ipv4_mapped or (IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _TRANSLATED else ip)
    return not ip.is_global or ip.is_multicast


def host_is_near(host: str) -> bool:
    """`is_near` of the host in a URL. A name other than localhost gives False: only its look-up shows where it is."""
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    with suppress(ValueError):
        return is_near(host)
    with suppress(OSError):
        return is_near(socket.inet_ntoa(socket.inet_aton(host)))  # 127.1 and 0x7f000001 are addresses, too
    return False
