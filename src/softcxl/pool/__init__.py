"""Memory that programs share: the pool's client, on a host and inside its guests.

How a program comes to the pool, allocates and writes, and what happens when the server dies, by file:

====================  ==================================================================================================
connect               `session` (`softcxl.connect`, `Pool`), of `client`; `address`, `link` (`device`, `dax` in a guest)
map the memory        `mapping`: the arena, whose directory `layout` declares, and the sources
ask the server        `calls`, by shared memory, what `protocol` declares; `allocation`: what is asked for a region
read and write        `region`, of `opened`; `poison` around lines that are lost; `managed`, `coherence` between hosts
the server dies       `watch` sees it, `connection` has the client's place again, `holdings` is what it tells the next
send and receive      `channel`: rings and queues, of `part`, and a `reference`; `exchange`: those of one client
call a function       `rpc`, `pending`, by the client's `table`; `codec`: as bytes, `buffer`: what no cell has room for
serve one             `service`
====================  ==================================================================================================

What has to be right when somebody is killed amid it is in C (`core`), which `native` has; `fallback` is what there is
without.
"""
