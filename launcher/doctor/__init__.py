"""Checks that the machines are as the cluster file says, and ready.

A check (check.py) is an object with two halves: `gather` runs on each host and gives a fact, `judge` looks
at the facts of all hosts at once. Adding one is writing both in the file of its topic, naming it in CHECKS
there, and a test. gather.py is the program that runs on the hosts, ask.py runs it on all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, List, Mapping, Tuple

from launcher.doctor import host, links, npus, ports, software
from launcher.doctor.check import Check, Finding, View, merged, unknown_findings
from launcher.errors import PreflightError

if TYPE_CHECKING:
    from launcher.cluster_types import Cluster

TOPICS = (npus, links, ports, software, host)
CHECKS: Tuple[Check, ...] = tuple(check for topic in TOPICS for check in topic.CHECKS)


def names(is_ascend: bool) -> List[str]:
    """The checks that are of use."""
    return [check.name for check in CHECKS if is_ascend or not check.ascend]


def judge(view: View) -> List[Finding]:
    """All findings, fatal ones first."""
    findings = [finding for check in CHECKS for finding in check.judge(view)]
    findings += unknown_findings(view)
    return sorted(findings, key=lambda finding: not finding.fatal)


def require_ready(cluster: Cluster, facts: Mapping[str, Mapping[str, Any]]) -> List[Finding]:
    """The quick part, before anything is started; returns the warnings.

    facts: by host name what its agent said in its hello, see launcher/agent/observe.py. Raises PreflightError
    with all fatal findings, one a line.
    """
    known = {host: {**hello, **hello.get("examined", {})} for host, hello in facts.items()}
    unknown = {host: hello.get("unknown", {}) for host, hello in facts.items()}
    findings = judge(View(cluster, known, unknown))
    fatal = [finding for finding in findings if finding.fatal]
    if fatal:
        raise PreflightError("\n".join(map(str, merged(fatal))), fatal[0].host, fatal[0].device)
    return merged(findings)
