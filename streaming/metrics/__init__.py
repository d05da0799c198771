"""What this service counts of itself, over all its workers: `Metrics` is one worker's part of it."""

from streaming.metrics._recorder import Metrics as Metrics
