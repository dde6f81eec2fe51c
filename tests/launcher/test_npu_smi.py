"""npu-smi's outputs: every layout gives the right devices; what is damaged gives them too, or is refused."""

from __future__ import annotations

import random
from pathlib import Path
from typing import List, Optional

import pytest
from ascend_server import Npu, info_text, mapping_text, npus, topo_text

from launcher import devices, npu_smi
from launcher.errors import Unreadable

SAMPLES = Path(__file__).parents[3] / "shared" / "ascend" / "samples"
KINDS = {"ascend310p": 4, "ascend910": 8, "ascend910b": 8, "ascend910_93": 16, "ascend950": 8}


def busy(kind: str) -> List[Npu]:
    chips = npus(kind, KINDS[kind])
    chips[-1].health, chips[-1].processes = "Alarm", [(957687, "pt_main thread", 49207), (7, "", 12)]
    return chips


def ids(nodes: List[int], info: str, mapping: str) -> List[tuple]:
    found = devices.combine(nodes, npu_smi.parse_info(info), npu_smi.parse_mapping(mapping))
    return [(npu.id, npu.logic, npu.card, npu.chip) for npu in found.npus]


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_layout_is_read(kind: str, wide: bool) -> None:
    chips = busy(kind)
    info = npu_smi.parse_info("a driver's warning\n" + info_text(kind, chips, "26.0.rc1", wide))
    last = info.chips[-1]
    assert [(chip.card, chip.chip) for chip in info.chips] == [(npu.card, npu.chip) for npu in chips]
    hbm = (None, None) if kind == "ascend310p" else (3400, 65536)
    assert (last.health, last.temp_c, last.aicore) == ("Alarm", 46, 7)
    assert (last.hbm_used_mb, last.hbm_mb) == hbm
    assert last.power_w == (None if kind == "ascend910_93" else 88.4)  # the second die of a card has none
    assert [(p.card, p.pid, p.name, p.memory_mb) for p in info.processes] == [
        (last.card, 957687, "pt_main thread", 49207),
        (last.card, 7, "", 12),
    ]
    expected = [(npu.phy, npu.logic, npu.card, npu.chip) for npu in chips]
    nodes = [npu.phy for npu in chips]
    assert ids(nodes, info_text(kind, chips, wide=wide), mapping_text(kind, chips)) == expected


@pytest.mark.parametrize("ends", [True, False])
def test_the_310p_is_read_with_and_without_its_processes(ends: bool) -> None:
    text = info_text("ascend310p", npus("ascend910_93", 2))
    info = npu_smi.parse_info(text if ends else text[: text.index("| NPU     Chip")].rsplit("\n+--", 1)[0])
    assert [(chip.name, chip.chip, chip.hbm_mb) for chip in info.chips] == [
        ("310P3", 0, None),
        ("310P3", 1, None),
    ]


def spoilt(text: str, dice: random.Random) -> str:
    """Cut anywhere, or without some lines."""
    lines = text.splitlines(keepends=True)
    how = dice.randrange(4)
    if how == 0:
        return text[: dice.randrange(len(text))]
    if how == 1:
        return "".join(lines[: dice.randrange(len(lines))])
    if how == 2:
        first = dice.randrange(len(lines))
        return "".join(lines[:first] + lines[first + dice.choice([1, 2, 3]) :])
    return "".join(line for line in lines if dice.random() > 0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_gives_the_right_devices_or_a_refusal(kind: str) -> None:
    chips = busy(kind)
    nodes = [npu.phy for npu in chips]
    info, mapping = info_text(kind, chips), mapping_text(kind, chips)
    right = ids(nodes, info, mapping)
    dice = random.Random(f"damage of {kind}")
    spoils = [(info[:cut], mapping) for cut in range(0, len(info), 83)]
    spoils += [(info, mapping[:cut]) for cut in range(0, len(mapping), 3)]
    lines = info.splitlines(keepends=True)
    spoils += [("".join(lines[:i] + lines[i + 1 :]), mapping) for i in range(len(lines))]
    spoils += [(spoilt(info, dice), spoilt(mapping, dice)) for _ in range(30)]
    spoils += [(spoilt(info, dice), mapping) for _ in range(60)]
    refused = 0
    for one, other in spoils:
        try:
            assert ids(nodes, one, other) == right, (one, other)
        except Unreadable:
            refused += 1
    assert refused > len(spoils) / 2


def test_a_list_that_misses_a_device_is_caught_by_the_device_nodes() -> None:
    fewer = npus("ascend910b", 7)
    with pytest.raises(
        Unreadable, match=r"devices of /dev/davinci\* are 0, 1, 2, 3, 4, 5, 6, 7, those of npu-smi"
    ):
        ids(list(range(8)), info_text("ascend910b", fewer), mapping_text("ascend910b", fewer))


def test_a_process_on_a_chip_that_is_not_there_is_refused() -> None:
    chips = npus("ascend910", 2)
    chips[1].processes = [(7, "python", 1)]
    info = info_text("ascend910", chips)
    with pytest.raises(Unreadable, match=r"a process on NPU and chip \(1, 3\)"):
        ids([0, 1], info.replace("| 1       0 ", "| 1       3 "), mapping_text("ascend910", chips))


def test_physical_ids_come_from_the_remap_where_the_layout_has_none() -> None:
    chips = [Npu(phy, card, logic=logic) for phy, card, logic in ((4, 6, 0), (5, 7, 1))]
    info, mapping = info_text("ascend910", chips), mapping_text("ascend910", chips)
    with pytest.raises(Unreadable, match="which is which cannot be told"):
        ids([4, 5], info, mapping)
    text = "\tChip Physical ID  :{}\n\tChip Logic ID   :{}\n\tNPU ID    :{}\n\tChip ID   :0\n"
    remaps = [npu_smi.parse_remap(text.format(npu.phy, npu.logic, npu.card)) for npu in chips]
    found = devices.combine([4, 5], npu_smi.parse_info(info), npu_smi.parse_mapping(mapping), remaps)
    assert [(npu.id, npu.logic, npu.card) for npu in found.npus] == [(4, 0, 6), (5, 1, 7)]


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("dcmi module initialize failed. ret is -8005\n", "in a container pass in /dev/davinci"),
        ("dcmi model initialized failed, because the device is used. ret is -8020", "another container"),
        ("There is no NPU card on this server.\n", "no card is seen"),
        ("", "it is no whole table"),
    ],
)
def test_what_npu_smi_says_in_place_of_an_answer_is_told_with_a_remedy(said: str, means: str) -> None:
    with pytest.raises(Unreadable, match=means):
        npu_smi.parse_info(said)


def test_health_goes_on_over_several_lines() -> None:
    text = (
        "\tHealth Status                  : Alarm\n\tError Code                     : A4025021 8C03A000\n"
        "\tError Information              : heart beat lost\n\n\t       : node type=adda, event state=Lost.\n"
    )
    health = npu_smi.parse_health(text)
    assert health.codes == ("A4025021", "8C03A000")
    assert health.information == "heart beat lost; node type=adda, event state=Lost."
    with pytest.raises(Unreadable):
        npu_smi.parse_health(text.splitlines()[0])


@pytest.mark.parametrize("label", ["NPU", "Phy-ID"])
def test_topo_names_the_cpus_near_each_device(label: str) -> None:
    near: List[Optional[str]] = ["144-167", "0-23,96-119", "48-71", "0-23"]
    text = topo_text(near, label)
    whole = npu_smi.parse_topo(text)
    key = "card" if label == "NPU" else "phy"
    assert whole == {(key, i): cpus for i, cpus in enumerate(near)}
    lines = text.splitlines(keepends=True)
    for spoil in [text[:cut] for cut in range(0, text.index("Legend:"), 3)] + [
        "".join(lines[:i] + lines[i + 1 :]) for i in range(5)
    ]:
        with pytest.raises(Unreadable):
            npu_smi.parse_topo(spoil)


def test_a_board_that_tells_no_cpus_is_said_to() -> None:
    with pytest.raises(Unreadable, match="tells no CPUs here"):
        npu_smi.parse_topo(topo_text([None, None], "Phy-ID"))
    with pytest.raises(Unreadable, match="this board does not answer that"):
        npu_smi.parse_topo("This device does not support querying topo.\n")


A3_HBM_MB = (
    *(3402, 3200, 3396, 3205, 3395, 3203, 3395, 3203),
    *(52553, 52358, 52567, 52345, 52552, 52358, 52554, 52358),
)
A3_PIDS = (957687, 957770, 957790, 957852, 957876, 957912, 957957, 958011)
BUSY_PIDS = (139667, 139577, 139446, 139372, 139258, 139163, 139126, 139090)
BUSY_LESS = (3, 4, 5)  # NPUs with a megabyte less in use than the others
CHIPS = {  # recorded output -> card, chip, physical id, health, HBM in use and in all, MB
    "issue_5315_310P_container_outside.txt": [(1, chip, None, "OK", None, None) for chip in (0, 1)],
    "yuanrong_24.1.rc3.3_910C_A3_16die_with_procs.txt": [
        (i // 2, i % 2, i, "OK", used, 65536) for i, used in enumerate(A3_HBM_MB)
    ],
    "faultdiagdoc_23.0.rc3_busy_8npu_with_procs.txt": [
        (i, 0, None, "OK", 30709 if i in BUSY_LESS else 30710, 32768) for i in range(8)
    ],
}
PROCESSES = {  # card, chip, process id, name, MB
    "yuanrong_24.1.rc3.3_910C_A3_16die_with_procs.txt": [
        (4 + i // 2, i % 2, pid, "pt_main_thread", 49207) for i, pid in enumerate(A3_PIDS)
    ],
    "faultdiagdoc_23.0.rc3_busy_8npu_with_procs.txt": [
        (i, 0, pid, "python", 30782 if i == 1 else 30780) for i, pid in enumerate(BUSY_PIDS)
    ],
}
MAPPINGS = {  # card, chip, logical id, physical id
    "mapping_910A_8.txt": [(i, 0, i, None) for i in range(8)],
    "mapping_910B3_with_mcu.txt": [(0, 0, 0, None), (1, 0, 1, None)],
    "mapping_card4_logic0.txt": [(4, 0, 0, None)],
}
KUNPENG = ("144-167", "0-23", "144-167", "0-23", "96-119", "48-71", "96-119", "48-71")
TOPOS = {  # CPUs near each NPU
    "arthurchiao_910B1_npu_smi_info_t_topo.txt": KUNPENG,
    "yuanrong_npu_smi_info_t_topo_8.txt": KUNPENG,
    "yuanrong_topo_4npu_PXB_SYS.txt": ("144-167", "96-119", "48-71", "0-23"),
}


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="recorded tool outputs are not beside this checkout")
def test_recorded_outputs_are_read_or_refused() -> None:
    """All files, each by every parser: what is no whole output of the tool is refused by it."""
    for path in sorted((SAMPLES / "npu_smi").iterdir()):
        text, name = path.read_text(), path.name
        try:
            info = npu_smi.parse_info(text)
            chips = [(c.card, c.chip, c.phy, c.health, c.hbm_used_mb, c.hbm_mb) for c in info.chips]
            assert (chips, list(info.processes)) == (CHIPS[name], PROCESSES.get(name, [])), name
        except Unreadable:
            assert name not in CHIPS
        try:
            assert [npu[:4] for npu in npu_smi.parse_mapping(text)] == MAPPINGS[name], name
        except Unreadable:
            assert name not in MAPPINGS
        try:
            near = {("card", i): cpus for i, cpus in enumerate(TOPOS.get(name, ()))}
            assert npu_smi.parse_topo(text) == near, name
        except Unreadable:
            assert name not in TOPOS
    sick = npu_smi.parse_health(
        (SAMPLES / "npu_smi" / "faultdiagdoc_npu_smi_info_i_N_c_0_t_health.txt").read_text()
    )
    assert sick == ("OK", (), "")
