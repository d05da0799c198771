"""What ``python -m streaming <name>`` can do: a file for each.

A command has ``run(argv) -> int``, which gets what stands behind its name and
returns the exit status. The first line of its docstring is its line in the
list of commands. Its module is imported with nothing patched yet, and to show
that list; so it imports at the top only what is cheap and opens no socket.
"""
