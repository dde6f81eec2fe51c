"""What a check of the machines is made of. Standard library only: one half of it runs on the hosts."""

from __future__ import annotations

from collections import Counter
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Tuple,
)

if TYPE_CHECKING:
    from launcher.cluster_types import Cluster, Host


NAMED_HOSTS = 8  # of those of whom the same is said


class Finding(NamedTuple):
    """`host`, or a `device` on it: the culprit. `what` is wrong, what it `causes`, the `remedy`: what to do.
    fatal: a training could not start, would hang or be lost; else it is a warning."""

    host: str
    what: str
    causes: str
    remedy: str
    device: Optional[int] = None
    fatal: bool = True

    @property
    def culprit(self) -> str:
        return self.host if self.device is None else f"{self.host} device {self.device}"

    def __str__(self) -> str:
        return f"{self.culprit}: {self.what}; {self.causes}; {self.remedy}"


def merged(findings: Iterable[Finding]) -> List[Finding]:
    """Findings that say the same of several hosts as one whose `host` names them all; devices stay apart."""
    groups: Dict[Finding, List[str]] = {}
    for finding in findings:
        same = finding._replace(host="") if finding.device is None else finding
        groups.setdefault(same, []).append(finding.host)
    return [finding._replace(host=_names(hosts)) for finding, hosts in groups.items()]


def _names(hosts: List[str]) -> str:
    more = len(hosts) - NAMED_HOSTS
    return ", ".join(hosts[:NAMED_HOSTS]) + (f" and {more} more" if more > 0 else "")


class Request(NamedTuple):
    """What a host is asked for, as it can be sent there.

    devices: ids of the Ascend devices it is to give. address: its own. master_port: where the ranks are to
    meet, if that is fixed. ping: device id -> address of a device of another server, by physical ids.
    folder: of the runs. data: files and folders that the training reads.
    """

    devices: Tuple[int, ...] = ()
    address: str = ""
    master_port: Optional[int] = None
    ping: Mapping[int, str] = {}
    folder: str = "."
    data: Tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Request:
        """What came through JSON, which knows neither tuples nor integer keys."""
        ping = {int(device): ip for device, ip in values["ping"].items()}
        lists = {name: tuple(values[name]) for name in ("devices", "data")}
        return cls(**{**values, **lists, "ping": ping})


class View:
    """What is known of the hosts. `facts`: host name -> name of a check -> what its `gather` gave there.
    `unknown`: the same with why a fact is not to be had."""

    def __init__(
        self,
        cluster: Cluster,
        facts: Mapping[str, Mapping[str, Any]],
        unknown: Optional[Mapping[str, Mapping[str, str]]] = None,
    ) -> None:
        self.cluster = cluster
        self.facts = facts
        self.unknown = unknown or {}

    def each(self, name: str) -> Iterator[Tuple[Host, Any]]:
        """The hosts, in the order of the file, of which this fact is known."""
        for host in self.cluster.hosts:
            value = self.facts.get(host.name, {}).get(name)
            if value is not None:
                yield host, value


class Check(NamedTuple):
    """`gather` runs on each host and gives a fact as JSON can hold it; `judge` looks at those of all hosts.

    What gather raises makes the fact unknown there, with the exception's text as the reason. quick: also part
    of every start of a training. ascend: only of use where there are Ascend devices.
    """

    name: str
    gather: Callable[[Request], Any]
    judge: Callable[[View], Iterator[Finding]]
    quick: bool = True
    ascend: bool = False


def odd_ones(values: Mapping[Any, Any]) -> Iterator[Tuple[Any, Any, Any]]:
    """(key, its value, what most have) of each that differs; of values as frequent the first rules."""
    if values:
        usual = Counter(map(repr, values.values())).most_common(1)[0][0]
        common = next(value for value in values.values() if repr(value) == usual)
        yield from ((key, value, common) for key, value in values.items() if value != common)


def size(megabytes: float) -> str:
    return f"{megabytes / 1000:.1f} GB"


def unknown_findings(view: View) -> Iterator[Finding]:
    """One warning for each reason why facts are not known. A host that tells nothing is of no use."""
    for host in view.cluster.hosts:
        reasons: Dict[str, List[str]] = {}
        for name, why in view.unknown.get(host.name, {}).items():
            reasons.setdefault(why, []).append(name)
        for why, names in reasons.items():
            if not view.facts.get(host.name):
                remedy = "see that it is up and its prefix leads there"
                yield Finding(host.name, why, "no worker can be started there", remedy)
                continue
            what = f"not known are {', '.join(sorted(names))}: {why}"
            causes = "what is wrong there shows in the training"
            yield Finding(host.name, what, causes, "correct it, or look by hand", fatal=False)
