"""One pace for all workers: what a provider allows, shared over Redis and used to the full.

The workers do not use it yet; `benchmarks/pacing.py` does, with processes of its own.

pacer      what a worker uses: `admit` before a call, `settle` after it
shared     the message to Redis and back; `pace.lua` is what all workers decide there together
bucket     a share of the rate for as long as Redis is away
window     calls in flight of one process, adapting where nothing else tells the limit
estimate   what a call will use, corrected by what calls used
state      what is paused, stopped and learned, for `status`
"""

from __future__ import annotations
