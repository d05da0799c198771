"""The project's own benchmark: ``make bench``. See docs/performance.md."""
