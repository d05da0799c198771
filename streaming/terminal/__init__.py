"""A client for the terminal: asks a service, or starts one in its own process, and prints the answer.

It knows the service by its wire alone, as any other client does.
"""
