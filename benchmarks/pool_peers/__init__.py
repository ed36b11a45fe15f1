"""Ways by which one process asks another, each as a `Peer`: what we have, and what a user would pick instead."""

from __future__ import annotations

import importlib

from pool_peers.peer import Missing, Peer

#: Every peer and where it is; what it needs is imported when it is asked for, so that one that is missing says so.
PEERS = {
    "floor in C": "pool_peers.floor:Floor",
    "ring": "pool_peers.ours:Ring",
    "call": "pool_peers.ours:Rpc",
    "by reference": "pool_peers.ours:Reference",
    "pool.ring": "pool_peers.pool:Rings",
    "pool.client": "pool_peers.pool:Service",
    "pool reference": "pool_peers.pool:References",
    "Unix socket": "pool_peers.sockets:UnixSocket",
    "multiprocessing.Pipe": "pool_peers.sockets:Pipe",
    "ZeroMQ ipc": "pool_peers.zeromq:ZeroMq",
    "gRPC": "pool_peers.grpc_unary:Grpc",
    "iceoryx2": "pool_peers.iceoryx:Iceoryx",
}

#: What is ours, and not what it is compared with.
OURS = ("ring", "call", "by reference", "pool.ring", "pool.client", "pool reference")


def load(name: str) -> Peer:
    """The peer of that name; `Missing` says why there is none."""
    module, _, attribute = PEERS[name].partition(":")
    peer: Peer = getattr(importlib.import_module(module), attribute)()
    peer.name = name
    return peer


def loaded() -> tuple[list[Peer], dict[str, str]]:
    """All peers that this machine has, and of the others why not."""
    peers, missing = [], {}
    for name in PEERS:
        try:
            peers.append(load(name))
        except Missing as reason:
            missing[name] = str(reason)
    return peers, missing


__all__ = ["OURS", "PEERS", "Missing", "Peer", "load", "loaded"]
