"""Runnables: what users bring, each kind as a source.

``RUNNABLES="support=myapp.chains:chain"`` makes ``chain`` a value of ``source``.
What the object is decides which file of this folder serves it. To support
another kind, add a file with ``accepts(found) -> bool`` and
``create(found, settings) -> Source``; it may import its framework, because it is
imported only when something is registered.
"""
