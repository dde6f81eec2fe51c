"""A rank is stopped, spins or is blocked, or a collective does not end, at shrunk limits: is the right rank
named, are all stacks kept, does the run go on? And a run whose phases are long hangs in none of them.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Optional

from first_failure import log_of
from programs import LIMIT_S, OURS, job
from row import Broken, Figures, Row

RANKS, STEPS = 4, 30
HANG_S = 1.0
KINDS = {"stop": "stopped", "spin": "spinning", "hang": "blocked", "stall": "interconnect"}
COMPILE_S, SAVE_S, EVAL_S = 60, 30, 60
CLUSTER = f"""
device_kind: cpu
hosts:
  - {{name: here, address: 127.0.0.1, devices: {RANKS}}}
timeouts: {{start_s: 30, grace_s: 2, hang_s: {HANG_S}}}
"""


def hang(dice: Random, folder: Path) -> Figures:
    fault, step = dice.choice(list(KINDS)), dice.randint(5, STEPS - 5)
    rank: Optional[int] = None if fault == "stall" else dice.randrange(RANKS)
    settings = [f"steps={STEPS}", f"step_s={dice.uniform(0.01, 0.05):.4f}", "collective=0"]
    if rank is None:
        settings.append(f"stall={step}")
    else:  # ordered for the first attempt; the second one gets to the end
        settings += [f"faults={fault}@{step}:{rank}", "max_restarts=1"]
    with job(OURS, folder, RANKS, *settings, cluster=CLUSTER) as one:
        code = one.wait()
        verdicts, hung = one.events("verdict"), one.events("hung")
        seen = [(event["rank"], event["kind"]) for event in hung]
        if seen != [(rank, KINDS[fault])] or [v["rank"] for v in verdicts] != [rank]:
            raise Broken(f"{settings}: hung {seen}; {one.said()[-600:]}")
        if code != (6 if rank is None else 0):
            raise Broken(f"{settings}: code {code}; {one.said()[-600:]}")
        for other in range(RANKS):
            where = f"_{fault}" if other == rank else "_exchange"
            if where not in log_of(one, other).read_text():
                raise Broken(f"{settings}: no stack with {where} in the log of rank {other}")
        return {"hang_to_verdict_s": (verdicts[0]["time_ns"] - hung[0]["since_ns"]) / 1e9}


def slow(dice: Random, folder: Path) -> Figures:
    phases = f"phase=compile:1:{COMPILE_S},save:10:{SAVE_S},eval:20:{EVAL_S}"
    settings = [f"steps={STEPS}", "step_s=0.02", "collective=0", phases]
    with job(OURS, folder, RANKS, *settings, cluster=CLUSTER) as one:
        one.until(lambda: bool(one.events("end")), "no end", LIMIT_S + COMPILE_S + SAVE_S + EVAL_S)
        alarms = [*one.events("suspect"), *one.events("hung"), *one.events("decision")]
        if one.wait() != 0 or alarms:
            raise Broken(f"a run of long phases ended badly: {alarms}; {one.said()[-600:]}")
    return {}


ROWS = [
    Row("hangs", "the rank that hangs is named, all stacks are kept, the run is started again", hang, 40),
    Row(
        "slow-phases",
        f"{COMPILE_S} s of compile, {SAVE_S} s of save, {EVAL_S} s of evaluation are no hangs, "
        f"where limits begin at {HANG_S:g} s",
        slow,
        full=1,
        quick=0,
    ),
]
