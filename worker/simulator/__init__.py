"""Simulated providers: three wire dialects over real HTTP on loopback, with limits, faults and a bill.

    settings       what each provider does; `flavours` tells them apart by name
    server         HTTP, from `wire`; `control` answers the simulator's own paths
    service        takes a call: reads it by its dialect (`openai_chat`, `anthropic_messages`,
                   `gemini_generate_content`), counts it (`accounts`, `limits`), lets it go wrong (`faults`)
    turns          waits, answers (`answers`) or refuses in the provider's words (`refusals`, `rate_limits`)
    billing        every call that was answered, as the providers see it
    process        all of it as a process of its own, for `run --simulate` and for tests

Only answers of 2xx are billed. Of the calls that go wrong, `malformed` is billed (the work was done); `hang`,
`reset` and a client that leaves before the answer are not, unless the fault's `billed` says so.
"""

from __future__ import annotations
