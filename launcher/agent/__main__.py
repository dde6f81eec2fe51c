"""`python -m launcher.agent [--port N] [--devices 0,1,...] [--address IP] [--bind cpus] [--lease S]` serves a
supervisor on its stdin and stdout; with --lease also silence of S seconds ends everything.

`python -m launcher.agent --sweep TOKEN` ends what is left of a run on this host; `--examine doctor` tells the
doctor about it.
"""

from __future__ import annotations

import sys

from launcher.agent import guard, processes


def main(arguments: list[str]) -> int:
    given = dict(zip(arguments[::2], arguments[1::2]))
    if "--sweep" in given:
        left = processes.sweep(given["--sweep"])
        if left:
            print("could not be ended:", *left, file=sys.stderr)
        return 1 if left else 0
    if "--examine" in given:
        from launcher.doctor import gather

        gather.serve()
    # one machine with CPUs has no devices that could be ill, and nothing to compare with
    options: dict = {"examine": "--devices" in given or "--lease" in given}
    if "--port" in given:
        options["port"] = int(given["--port"])
    if "--devices" in given:
        options["devices"] = tuple(int(device) for device in given["--devices"].split(","))
    if "--address" in given:
        options["address"] = given["--address"]
    if "--bind" in given:
        options["bind"] = True
    return guard.main(options, float(given["--lease"]) if "--lease" in given else None)


sys.exit(main(sys.argv[1:]))
