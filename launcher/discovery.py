"""A cluster file out of what hosts say of themselves. Pure; `cli/discover.py` asks them and prints it."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from launcher.chips import CHIPS
from launcher.cluster import read_cluster
from launcher.errors import PreflightError, UserError
from launcher.yaml_lines import Document

# npu-smi's name of a chip, without "Ascend" -> the kind of a cluster file
NAMES: Tuple[Tuple[str, str], ...] = (
    (r"910(A|ProA|ProB|PremiumA)", "ascend910"),
    (r"910B\d.*", "ascend910b"),  # a bare 910B was a chip of the first generation as well
    (r"910_93\d*|910C", "ascend910_93"),
    (r"950.*", "ascend950"),
    (r"310P\d*", "ascend310p"),
)
TABLE = "hccl.json  # to be put here: version 2.0, as the cluster's manager or Huawei's tool makes it"


class Found(NamedTuple):
    """What a host said. npus: the `npus` fact of the doctor. address: for its hosts entry. prefix: how it was
    reached; none: it is this machine."""

    name: str
    address: str
    npus: Mapping[str, Any]
    ips: Mapping[int, str]
    prefix: Tuple[str, ...] = ()


def kind_of(npus: Sequence[Mapping[str, Any]]) -> str:
    """The device kind of a host's chips. Raises PreflightError where it is none that a job can use."""
    names = sorted({str(npu["name"]) for npu in npus})
    if len(names) != 1:
        raise PreflightError(f"it has chips of several kinds ({', '.join(names)}); use hosts with one kind")
    short = re.sub(r"^ascend[ _-]*", "", names[0], flags=re.I)
    kind = next((kind for pattern, kind in NAMES if re.fullmatch(pattern, short, re.I)), None)
    if kind is None and short == "910" and max(npu["chip"] for npu in npus) == 1:
        kind = "ascend910_93"  # it calls itself so, and is the one 910 with two chips on a card
    if kind is None:
        raise PreflightError(
            f"npu-smi calls its chips {names[0]!r}, which names no kind that is known here; write the cluster"
            f" file by hand, with device_kind {', '.join(CHIPS)}"
        )
    if kind not in CHIPS:
        raise PreflightError(f"its chips are {names[0]}: training on {kind} is not supported")
    return kind


def cluster_text(hosts: Sequence[Found]) -> str:
    """The text of the cluster file. Raises PreflightError where the hosts do not make one cluster."""
    problems, kinds = [], {}
    for host in hosts:
        try:
            kinds[host.name] = kind_of(host.npus["devices"])
        except PreflightError as error:
            problems.append(f"host {host.name}: {error}")
    if len(set(kinds.values())) > 1:
        told = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
        problems.append(f"the hosts have devices of several kinds ({told}); give --hosts those of one kind")
    if problems:
        raise PreflightError("\n".join(problems))
    text = _render(hosts, next(iter(kinds.values())))
    if not needs_table(hosts):  # without it little could be checked
        _check(text)
    return text


def needs_table(hosts: Sequence[Found]) -> bool:
    """Whether their cluster file has to name a rank table that cannot be made of it; of hosts of one kind."""
    version = CHIPS[kind_of(hosts[0].npus["devices"])].table_versions[0]
    return version == "2.0" and sum(len(host.npus["devices"]) for host in hosts) > 1


def _render(hosts: Sequence[Found], kind: str) -> str:
    version = ", ".join(sorted({str(host.npus["version"]) for host in hosts}))
    lines = [
        f"# Found by `fcn-launch discover` (npu-smi {version}).",
        f"device_kind: {kind}",
        *([f"rank_table: {TABLE}"] if needs_table(hosts) else []),
        f"engine: {'exec' if any(host.prefix for host in hosts) else 'local'}",
        "hosts:",
    ]
    for host in hosts:
        lines += [f"  - name: {host.name}", f"    address: {_quote(host.address)}"]
        if host.prefix:
            lines.append(f"    prefix: [{', '.join(map(_quote, host.prefix))}]")
        lines += _devices(host, has_table=needs_table(hosts))
    return "\n".join(lines) + "\n"


def _devices(host: Found, has_table: bool) -> List[str]:
    npus = sorted(host.npus["devices"], key=lambda npu: npu["id"])
    if has_table:  # which says what their addresses are
        return ["    devices:", *(f"      - {npu['id']}  # {_comment(npu)}" for npu in npus)]
    if not all(npu["id"] in host.ips for npu in npus):
        ids = ", ".join(str(npu["id"]) for npu in npus)
        return [f"    devices: [{ids}]  # {npus[0]['name']}; not every network card tells its address"]
    rows = [(f"      {npu['id']}: {_quote(host.ips[npu['id']])}", _comment(npu)) for npu in npus]
    width = max(len(row[0]) for row in rows)
    head = "    devices:  # physical device id: address of its network card"
    return [head, *(f"{entry:{width}}  # {comment}" for entry, comment in rows)]


def _comment(npu: Mapping[str, Any]) -> str:
    logic = "" if npu["logic"] is None else f", logical {npu['logic']}"
    return f"card {npu['card']} chip {npu['chip']}{logic}, {npu['name']}, {npu['health']}"


def _quote(value: str) -> str:
    """A word of YAML: quoted where plain it would be something else, as an IPv6 address may."""
    return value if re.fullmatch(r"[A-Za-z0-9_./-][A-Za-z0-9_./@-]*", value) else f'"{value}"'


def _check(text: str) -> None:
    """That what is printed would load."""
    import yaml

    try:
        read_cluster(Document("discover", yaml.safe_load(text)))
    except UserError as error:
        told = str(error).replace("discover: ", "")
        raise PreflightError(f"what was found makes no cluster file:\n{told}") from None


def address_of(name: str, resolved: Optional[str], own: Optional[str]) -> str:
    """The address that other hosts reach a host by: what its name means here, else what it says of itself.

    Raises PreflightError where only loopback is known.
    """
    candidates = [text for text in (resolved, own) if text]
    usable = [text for text in candidates if not ipaddress.ip_address(text).is_loopback]
    if usable:
        return usable[0]
    raise PreflightError(
        f"host {name}: no address but loopback is known of it; write it into /etc/hosts, or the cluster file"
    )


def unhealthy(hosts: Sequence[Found]) -> Dict[str, List[int]]:
    """Host -> ids of the devices that npu-smi does not call OK."""
    bad = {host.name: [npu["id"] for npu in host.npus["devices"] if npu["health"] != "OK"] for host in hosts}
    return {name: ids for name, ids in bad.items() if ids}
