"""What stands between a service and its clients, and how the service was started: measured and judged.

Three steps that know nothing of each other: something measures (`examining`
from a terminal, ``static/doctor.js`` from a browser, ``web/_service_facts.py``
in the service), `judging` and `service` say what the numbers mean, and
somebody shows it. Page and command so tell the same in the same words.
"""
