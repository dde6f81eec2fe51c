"""A rank is stopped, spins or is blocked, or a collective does not end, at shrunk limits: is the right rank
named, are all stacks kept, does the run go on? And a run whose phases are long hangs in none of them.
"""

from __future__ import annotations

import time
from pathlib import Path
from random import Random
from typing import Callable, Optional

from clusters import Cluster, four_hosts, here
from first_failure import log_of
from programs import LIMIT_S, OURS, PEERS, job
from row import Broken, Case, Figures, Row

RANKS, STEPS = 4, 30
HANG_S = 1.0
DISK_AT = 25
PEER_WAIT_S = 60.0
LIMITS = f", hang_s: {HANG_S}"
KINDS = {"stop": "stopped", "spin": "spinning", "hang": "blocked", "stall": "interconnect"}


def hang(make_cluster: Cluster) -> Case:
    def case(dice: Random, folder: Path) -> Figures:
        fault, step, restarts = dice.choice(list(KINDS)), dice.randint(5, STEPS - 5), dice.randrange(2)
        rank: Optional[int] = None if fault == "stall" else dice.randrange(RANKS)
        # The fault is of the first attempt; the second one gets to the end.
        settings = [f"stall={step}" if rank is None else f"faults={fault}@{step}:{rank}"]
        settings += [f"steps={STEPS}", f"step_s={dice.uniform(0.01, 0.05):.4f}", "collective=0"]
        settings.append(f"max_restarts={restarts}")
        with job(OURS, folder, RANKS, *settings, cluster=make_cluster(dice, folder, RANKS, LIMITS)) as one:
            code = one.wait()
            verdicts, hung = one.events("verdict"), one.events("hung")
            seen = [(event["rank"], event["kind"]) for event in hung]
            if seen != [(rank, KINDS[fault])] or [v["rank"] for v in verdicts] != [rank]:
                raise Broken(f"{settings}: hung {seen}; {one.said()[-600:]}")
            if code != (0 if restarts else 6):
                raise Broken(f"{settings}: code {code}; {one.said()[-600:]}")
            for other in range(RANKS):
                where = f"_{fault}" if other == rank else "_exchange"
                if where not in log_of(one, other).read_text():
                    raise Broken(f"{settings}: no stack with {where} in the log of rank {other}")
            return {"hang_to_verdict_s": (verdicts[0]["time_ns"] - hung[0]["since_ns"]) / 1e9}

    return case


def slow(compile_s: float, save_s: float, eval_s: float, disk_s: float) -> Case:
    """Save and evaluation are quick before they are slow; the data of one step wait for a disk."""

    def case(dice: Random, folder: Path) -> Figures:
        quick = dice.uniform(0, 0.2)
        phases = f"compile:1:{compile_s},save:5:{quick},eval:6:{quick},save:10:{save_s},eval:20:{eval_s}"
        settings = [
            f"steps={STEPS}",
            "step_s=0.02",
            "collective=0",
            f"phase={phases}",
            f"disk={DISK_AT}:{disk_s}",
        ]
        whole_s = compile_s + save_s + eval_s + disk_s
        with job(OURS, folder, RANKS, *settings, cluster=here(dice, folder, RANKS, LIMITS)) as one:
            one.until(lambda: bool(one.events("end")), "no end", LIMIT_S + whole_s)
            # Who waits for a disk is looked at before it is known: suspected, and no more.
            suspects = [
                event for event in one.events("suspect") if f"data of step {DISK_AT}" not in event["place"]
            ]
            alarms = [*suspects, *one.events("hung"), *one.events("decision")]
            if one.wait() != 0 or alarms:
                raise Broken(f"a run of long phases ended badly: {alarms}; {one.said()[-600:]}")
        return {}

    return case


def of_a_peer(launcher: str) -> Callable[[Random, Path], Figures]:
    """One rank hangs in a step; whether anything is said or done about it in a minute."""

    def case(dice: Random, folder: Path) -> Figures:
        fault, rank = dice.choice(("stop", "spin", "hang")), dice.randrange(RANKS)
        settings = ["steps=100000", "step_s=0.02", "collective=0", f"faults={fault}@20:{rank}"]
        with job(launcher, folder, RANKS, *settings) as one:
            one.until_running()
            said, end = one.said(), time.monotonic() + PEER_WAIT_S
            while time.monotonic() < end and one.process.poll() is None:
                time.sleep(0.5)
            if one.process.poll() is None:
                more = one.said()[len(said) :]
                raise Broken(f"{fault}: it goes on, and says in {PEER_WAIT_S:g} s: {more!r}")
        return {}

    return case


def slow_row(name: str, *times_s: float, full: int, quick: int) -> Row:
    compile_s, save_s, eval_s, disk_s = times_s
    must = (
        f"{compile_s:g} s of compile, {save_s:g} s of save, {eval_s:g} s of evaluation after quick ones, "
        f"{disk_s:g} s of waiting for a disk are no hangs, where limits begin at {HANG_S:g} s"
    )
    return Row(name, must, slow(*times_s), full, quick)


ROWS = [
    Row(
        "hangs",
        "the rank that hangs is named, all stacks are kept, the run goes on where a restart is left",
        hang(here),
        40,
        quick=8,
    ),
    Row("hangs-hosts", "the same on 4 hosts, clocks off by up to 500 ms", hang(four_hosts), 20, quick=6),
    slow_row("slow-phases", 60, 30, 60, 30, full=1, quick=0),
    slow_row("slow-phases-short", 6, 4, 6, 4, full=0, quick=1),
    *(
        Row(f"hangs-{peer}", "a peer, for comparison", of_a_peer(peer), 1, quick=0, share=None)
        for peer in PEERS
    ),
]
