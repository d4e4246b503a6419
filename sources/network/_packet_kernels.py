"""From captured frames to what they carry: link layer, IPv4 or IPv6, UDP or TCP, and the payload behind them.

Nothing in a frame is believed before it is compared with the bytes that were captured.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...pipeline.jit import kernel
from ._wire_kernels import be16, be32, be64, le32

__all__ = [
    "BAD_IP",
    "BAD_IP6",
    "BAD_TRANSPORT",
    "CUT_LINK",
    "DROPPED",
    "FILTERED",
    "FRAGMENT",
    "FRAGMENT6",
    "FRAMED_BAD",
    "LINK_TYPES",
    "NOT_IP",
    "NOT_UDP_TCP",
    "OK",
    "SNAPPED",
    "UNKNOWN_LINK",
    "UNSOUND",
    "dissect",
    "gather",
]

OK = 0
# Left out, with a reason that is counted.
NOT_IP, FRAGMENT6, FRAGMENT, NOT_UDP_TCP, UNKNOWN_LINK, FILTERED, DROPPED = 1, 2, 3, 4, 5, 6, 7
# Bad.
SNAPPED, BAD_IP, BAD_TRANSPORT, CUT_LINK, UNSOUND, FRAMED_BAD, BAD_IP6 = 8, 9, 10, 11, 12, 13, 14

_NULL, _ETHERNET, _RAW, _LOOP, _SLL, _SLL2, _IPV4, _IPV6 = 0, 1, 101, 108, 113, 276, 228, 229
#: Extension headers of IPv6, and the one that a packet's fragments have.
_HOPS, _ROUTING, _FRAGMENT, _AUTHENTICATION, _TARGET, _MOBILITY, _HOST, _SHIM = 0, 43, 44, 51, 60, 135, 139, 140
LINK_TYPES = {
    _NULL: "loopback",
    _ETHERNET: "Ethernet",
    12: "raw IP",
    14: "raw IP",
    _RAW: "raw IP",
    _LOOP: "OpenBSD loopback",
    _SLL: "Linux cooked",
    _SLL2: "Linux cooked 2",
    _IPV4: "raw IPv4",
    _IPV6: "raw IPv6",
}


@kernel
def _network(data: Any, at: Any, end: Any, link: Any) -> Any:
    """(ether type, where the network layer begins, VLAN). Type 0 for none that is known, -1 if the frame is cut."""
    if link == _RAW or link == 12 or link == 14:
        if at >= end:
            return -1, at, 0
        version = data[at] >> 4
        return (0x0800 if version == 4 else 0x86DD if version == 6 else 0), at, 0
    if link == _IPV4:
        return 0x0800, at, 0
    if link == _IPV6:
        return 0x86DD, at, 0
    if link in (_NULL, _LOOP):
        if at + 4 > end:
            return -1, at, 0
        family = min(np.int64(le32(data, at)), np.int64(be32(data, at)))
        if family == 2:
            return 0x0800, at + 4, 0
        six = family == 10 or family == 24 or family == 28 or family == 30
        return (0x86DD if six else 0), at + 4, 0
    kind_at = at + 12
    head = 14
    if link == _SLL:
        kind_at, head = at + 14, 16
    elif link == _SLL2:
        kind_at, head = at, 20
    if at + head > end:
        return -1, at, 0
    kind = np.int64(be16(data, kind_at))
    at += head
    vlan: Any = 0
    while kind == 0x8100 or kind == 0x88A8 or kind == 0x9100:
        if at + 4 > end:
            return -1, at, vlan
        vlan = np.int64(be16(data, at)) & 0xFFF
        kind = np.int64(be16(data, at + 2))
        at += 4
    return kind, at, vlan


@kernel
def _known(link: Any) -> Any:
    return link in (_NULL, _ETHERNET, 12, 14, _RAW, _LOOP, _SLL, _SLL2, _IPV4, _IPV6)


@kernel
def _ipv4(data: Any, at: Any, end: Any, snapped: Any) -> Any:
    """(code, protocol, where what it carries begins, where it ends) of an IPv4 packet."""
    if at + 20 > end:
        return SNAPPED if snapped else BAD_IP, 0, at, end
    head = np.int64(data[at] & 15) * 4
    total = np.int64(be16(data, at + 2))
    if total == 0:  # a frame that the network card was to cut into packets
        if snapped:
            return SNAPPED, 0, at, end
        total = end - at
    if data[at] >> 4 != 4 or head < 20 or total < head:
        return BAD_IP, 0, at, end
    if at + total > end:
        return SNAPPED if snapped else BAD_IP, 0, at, end
    if be16(data, at + 6) & 0x3FFF:
        return FRAGMENT, 0, at, end
    return OK, np.int64(data[at + 9]), at + head, at + total


@kernel
def _ipv6(data: Any, at: Any, end: Any, snapped: Any) -> Any:
    """The same of an IPv6 packet, behind its extension headers (RFC 8200). A fragment that is the whole is none."""
    if at + 40 > end:
        return SNAPPED if snapped else BAD_IP6, 0, at, end
    if data[at] >> 4 != 6:
        return BAD_IP6, 0, at, end
    total = np.int64(be16(data, at + 4))
    if total == 0:  # a jumbogram, or as above
        if snapped:
            return SNAPPED, 0, at, end
        total = end - at - 40
    stop = at + 40 + total
    if stop > end:
        return SNAPPED if snapped else BAD_IP6, 0, at, end
    following = np.int64(data[at + 6])
    at += 40
    while following in (_HOPS, _ROUTING, _TARGET, _MOBILITY, _HOST, _SHIM, _FRAGMENT, _AUTHENTICATION):
        if at + 8 > stop:
            return BAD_IP6, 0, at, end
        size = np.int64(data[at + 1]) * 8 + 8
        if following == _FRAGMENT:
            size = np.int64(8)
            if be16(data, at + 2) & 0xFFF9:
                return FRAGMENT6, 0, at, end
        elif following == _AUTHENTICATION:
            size = np.int64(data[at + 1]) * 4 + 8
        if at + size > stop:
            return BAD_IP6, 0, at, end
        following = np.int64(data[at])
        at += size
    return OK, following, at, stop


@kernel
def _is(data: Any, at: Any, host: Any) -> Any:
    """Whether the 16 bytes at `at` are the address `host`."""
    return be64(data, at) == be64(host, 0) and be64(data, at + 8) == be64(host, 8)


@kernel
def dissect(
    data: Any,
    count: Any,
    ats: Any,
    sizes: Any,
    fulls: Any,
    links: Any,
    port: Any,
    host: Any,
    host6: Any,
    codes: Any,
    begins: Any,
    lengths: Any,
    sources: Any,
    targets: Any,
    heads: Any,
    source_ports: Any,
    target_ports: Any,
    vlans: Any,
    protocols: Any,
) -> None:
    """What each of `count` frames carries: `codes`, and where it is OK the payload (`begins`, `lengths`) and addresses.

    Addresses of IPv4 are in `sources` and `targets`; those of IPv6 stay where they are, 8 and 24 bytes behind `heads`, which
    is -1 for IPv4. `port` (-1: any) and `host` (-1: any, -2: the IPv6 address `host6`) keep packets from or to them.
    """
    for i in range(count):
        codes[i] = FRAMED_BAD
        lengths[i] = 0
        heads[i] = -1
        if sizes[i] < 0:
            continue
        link = np.int64(links[i])
        if not _known(link):
            codes[i] = UNKNOWN_LINK
            continue
        end = np.int64(ats[i]) + np.int64(sizes[i])
        kind, at, vlan = _network(data, np.int64(ats[i]), end, link)
        snapped = np.int64(fulls[i]) > np.int64(sizes[i])
        if kind == 0x0800:
            code, protocol, inner, stop = _ipv4(data, at, end, snapped)
        elif kind == 0x86DD:
            code, protocol, inner, stop = _ipv6(data, at, end, snapped)
        else:
            code, protocol, inner, stop = NOT_IP, np.int64(0), at, end
            if kind == -1:
                code = SNAPPED if snapped else CUT_LINK
        if code != OK:
            codes[i] = code
            continue
        if protocol != 17 and protocol != 6:
            codes[i] = NOT_UDP_TCP
            continue
        codes[i] = BAD_TRANSPORT
        if inner + (8 if protocol == 17 else 20) > stop:
            continue
        if protocol == 17:
            size = np.int64(be16(data, inner + 4))
            if size == 0:  # as above
                size = stop - inner
            if size < 8 or inner + size > stop:
                continue
            begins[i] = inner + 8
            lengths[i] = size - 8
        else:
            size = np.int64(data[inner + 12] >> 4) * 4
            if size < 20 or inner + size > stop:
                continue
            begins[i] = inner + size
            lengths[i] = stop - inner - size
        source_ports[i] = be16(data, inner)
        target_ports[i] = be16(data, inner + 2)
        vlans[i] = vlan
        protocols[i] = protocol
        other = port >= 0 and source_ports[i] != port and target_ports[i] != port
        if kind == 0x86DD:
            heads[i] = at
            other |= host >= 0 or (host == -2 and not (_is(data, at + 8, host6) or _is(data, at + 24, host6)))
        else:
            sources[i] = be32(data, at + 12)
            targets[i] = be32(data, at + 16)
            other |= host == -2 or (host >= 0 and sources[i] != host and targets[i] != host)
        codes[i] = FILTERED if other else OK


@kernel
def gather(
    data: Any,
    count: Any,
    codes: Any,
    begins: Any,
    lengths: Any,
    times: Any,
    sources: Any,
    targets: Any,
    heads: Any,
    source_ports: Any,
    target_ports: Any,
    vlans: Any,
    first: Any,
    out_time: Any,
    out_seq: Any,
    out_source: Any,
    out_target: Any,
    out_source_port: Any,
    out_target_port: Any,
    out_vlan: Any,
    out_source6: Any,
    out_target6: Any,
    offsets: Any,
    values: Any,
) -> Any:
    """Rows of the packets that are OK, payloads one after the other in `values`; returns how many rows.

    `out_source6` and `out_target6` are written for packets of IPv6 only, and have no rows where there are none.
    """
    row = 0
    filled: Any = 0
    offsets[0] = 0
    for i in range(count):
        if codes[i] != OK:
            continue
        out_time[row] = times[i]
        out_seq[row] = first + i
        out_source[row] = sources[i]
        out_target[row] = targets[i]
        out_source_port[row] = source_ports[i]
        out_target_port[row] = target_ports[i]
        out_vlan[row] = vlans[i]
        head = np.int64(heads[i])
        if head >= 0:
            out_source6[row] = data[head + 8 : head + 24]
            out_target6[row] = data[head + 24 : head + 40]
        begin, length = np.int64(begins[i]), np.int64(lengths[i])
        values[filled : filled + length] = data[begin : begin + length]
        filled += length
        row += 1
        offsets[row] = filled
    return row
