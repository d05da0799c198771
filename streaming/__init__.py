"""One durable log, every dialect.

Everything moves one way, through the log. Even the first reader reads from the
log, so the path that is shown live is the path that is resumed::

     POST                                                              GET, Last-Event-ID
      │ Prompt                                                                  │
      ▼                                                                         ▼
    Source ──Event──▶ Producer ──payload──▶ EventLog ──Record──▶ Reader ──▶ WireFormat ──Message──▶ client
    sources/          producer.py           eventlogs/           reader.py  formats/                web/
    └────────── one producer greenlet ──────────┘└────────── each reader's own request greenlet ─────────┘
"""
