"""A rank that is stopped, spins or is blocked, or a collective that does not end, at shrunk limits: is the right
one named, are all stacks kept, does the run go on? And a run whose phases are long hangs in none of them."""

from __future__ import annotations

from pathlib import Path
from random import Random

from first_failure import log_of
from launching import LOCAL_CLUSTER
from programs import LIMIT_S, OURS, job
from row import Broken, Figures, Row

RANKS, STEPS = 4, 30
HANG_S = 1.0
KINDS = {"stop": "stopped", "spin": "spinning", "hang": "blocked", "stall": "interconnect"}
COMPILE_S, SAVE_S, EVAL_S = 60, 30, 60


def hang(dice: Random, folder: Path) -> Figures:
    fault, rank, step = dice.choice(list(KINDS)), dice.randrange(RANKS), dice.randint(5, STEPS - 5)
    settings = [f"steps={STEPS}", f"step_s={dice.uniform(0.01, 0.05):.4f}", "collective=0", "max_restarts=1"]
    if fault == "stall":
        rank = None  # type: ignore[assignment]
        settings += [f"stall={step}"]
    else:
        settings += [f"faults={fault}@{step}:{rank}"]
    with job(OURS, folder, RANKS, *settings, cluster=cluster()) as one:
        code = one.wait()
        verdicts, hung = one.events("verdict"), one.events("hung")
        seen = [(event["rank"], event["kind"]) for event in hung]
        # A stall comes back in the second attempt, the others are ordered for the first.
        attempts, expected = (2, 6) if fault == "stall" else (1, 0)
        if seen != [(rank, KINDS[fault])] * attempts or len(verdicts) != attempts or code != expected:
            raise Broken(f"{settings}: code {code}, hung {seen}; {one.said()[-600:]}")
        for other in range(RANKS):
            where = f"_{fault}" if other == rank else "_exchange"
            if where not in log_of(one, other).read_text():
                raise Broken(f"{settings}: no stack with {where} in the log of rank {other}")
        began_ns = hung[0]["time_ns"] if fault == "stall" else injected_ns(one, rank)
        return {} if fault == "stall" else {"verdict_s": (verdicts[0]["time_ns"] - began_ns) / 1e9}


def slow(dice: Random, folder: Path) -> Figures:
    phases = f"phase=compile:1:{COMPILE_S},save:10:{SAVE_S},eval:20:{EVAL_S}"
    settings = [f"steps={STEPS}", "step_s=0.02", "collective=0", phases]
    with job(OURS, folder, RANKS, *settings, cluster=cluster()) as one:
        one.until(lambda: bool(one.events("end")), "no end", LIMIT_S + COMPILE_S + SAVE_S + EVAL_S)
        alarms = [*one.events("suspect"), *one.events("hung"), *one.events("decision")]
        if one.wait() != 0 or alarms:
            raise Broken(f"a run of long phases ended badly: {alarms}; {one.said()[-600:]}")
    return {}
