"""HTTP, one module for each shape of URL: ``create(streams, settings) -> Blueprint``."""
