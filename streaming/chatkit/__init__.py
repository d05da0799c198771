"""ChatKit's self-hosted protocol, over the log.

The vendor's server library reads the protocol and keeps its order of things; what it
asks for is ours: where threads are kept (`store`), and how an answer is made
(`server`): a run like any other, whose events are told as ChatKit's (`telling`).

The library is imported by the modules here, and they by the first request.
"""
