"""What the measurements from outside mean."""

from streaming.doctor import address, flow
from streaming.doctor.findings import Finding, worst_first
from streaming.doctor.measured import Measured


def judge(measured: Measured) -> list[Finding]:
    """Return what is found, the worst first; what was not measured is not judged."""
    return worst_first([*flow.judge(measured), *address.judge(measured)])
