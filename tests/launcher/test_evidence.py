"""What a log says of the reason. The logs are of MindSpore 2.10 on CPU and HCCL, shortened."""

from __future__ import annotations

import pytest

from launcher.evidence import MESSAGE_LINES, Sign, last_error, one_line, sign

PREFIX = "DISTRIBUTED(26898,7faf69e17b80,python):2026-11-23-13:26:20.518.190 [ccsrc"
RULE = "----------------------------------------------------"
FRAMES = """\
Traceback (most recent call last):
  File "train.py", line 16, in <module>
    world.sum(gradients)
    ^^^^^^^^^^^^^^^^^^^^
  File "mindspore/graph/api.py", line 2432, in _exec_pip
    return self._graph_executor(args, phase)
"""
APPENDIX = f"""\
{RULE}
- C++ Call Stack: (For framework developers)
{RULE}
mindspore/ccsrc/backend/ms_backend/runtime/actors/base/kernel_actor.cc:995 OnMemoryAllocFinish
"""
FOUND_BUSY = f"""\
[WARNING] {PREFIX}/cluster/rpc/tcp/socket_operation.cc:454] Listen] Failed to call bind, url: 127.0.0.1:24429\
 Address already in use
[ERROR] {PREFIX}/cluster/topology/meta_server_node.cc:71] Initialize] Failed to create the TCP server.
"""
UNSPAWNED = """\
RuntimeError: Failed to initialize distributed job cluster because some processes in the cluster are not \
successfully spawned. It may be one of the following reasons:
1.Spawned worker process number is not as expected.
2.Configured scheduler port MS_SCHED_PORT is occupied by other processes.
"""

# name: (log, what it is a sign of, the reason in one line)
LOGS = {
    "a peer was killed, CPU": (
        f"""\
rank 0 joined
[ERROR] {PREFIX}/cluster/rpc/core/collective_ops_impl.cc:162] RunRingAllReduce] Ring ReduceScatter wait \
receiving [1,11] failed.
[ERROR] KERNEL(26898,7faf69e17b80,python):2026-11-23-13:26:29.810.419 [mindspore/ops/kernel/cpu/native/\
allreduce_cpu_kernel.cc:89] Launch] AllReduceCPUKernelMod launch failed.
{FRAMES}RuntimeError:
{RULE}
- Kernel error:
{RULE}
Launch kernel failed: Default/AllReduce-op0

{RULE}
- The Function Call Stack: (For framework developers)
{RULE}
In file distributed.py:194, 49~67/        return x if self.all_reduce is None else self.all_reduce(x)/
{APPENDIX}
[INFO] {PREFIX}/cluster/rpc/core/communicator/tcp_client.cc:367] Start] Event base dispatch success!
""",
        Sign.LOST_PEER,
        "RuntimeError: Kernel error: Launch kernel failed: Default/AllReduce-op0",
    ),
    "the scheduler after a kill": (
        f"""\
[ERROR] {PREFIX}/cluster/topology/meta_server_node.cc:548] UpdateTopoState] The node: 1 is timed out. It may \
exit with exception, please check the log.
{FRAMES}RuntimeError: The total number of timed out node is 1. Timed out node list is: [const vector]{{1}}.

{APPENDIX}""",
        Sign.LOST_PEER,
        "RuntimeError: The total number of timed out node is 1. Timed out node list is: [const vector]{1}.",
    ),
    "another kernel": (
        f"""\
{FRAMES}RuntimeError:
{RULE}
- Kernel error:
{RULE}
Launch kernel failed: Default/ReduceMean-op3
{APPENDIX}""",
        None,
        "RuntimeError: Kernel error: Launch kernel failed: Default/ReduceMean-op3",
    ),
    "the port of the store is taken": (
        f"{FOUND_BUSY}{FRAMES}RuntimeError: Failure info [Failed to initialize the master node.].\n",
        Sign.PORT_TAKEN,
        "RuntimeError: Failure info [Failed to initialize the master node.].",
    ),
    "the address of the store is not this host's": (
        f"{FOUND_BUSY.replace('Address already in use', 'Cannot assign requested address')}"
        f"{FRAMES}RuntimeError: Failure info [Failed to initialize the master node.].\n",
        None,
        "RuntimeError: Failure info [Failed to initialize the master node.].",
    ),
    "the port of the scheduler is taken": (
        f"{FOUND_BUSY}{FRAMES}{UNSPAWNED}{APPENDIX}",
        Sign.PORT_TAKEN,
        None,
    ),
    "the scheduler is not there": (f"{FRAMES}{UNSPAWNED}{APPENDIX}", Sign.LOST_PEER, None),
    "HCCL's peer does not come": (
        f"""\
[ERROR] HCCL(17528,python3):2026-03-18-10:33:52.113.403 [hccl_socket_manager.cc:797] [18744][Wait]\
[LinkEstablish]wait socket establish timeout, role[1] rank[1] timeout[120 s]
{FRAMES}RuntimeError: Call Ascend api failed.
EI0006: 2026-03-18-10:33:52.444.436 Getting socket times out. Reason: Remote Rank did not send in time.
""",
        Sign.LOST_PEER,
        "RuntimeError: Call Ascend api failed. EI0006: 2026-03-18-10:33:52.444.436 Getting socket times out. "
        "Reason: Remote Rank did not send in time.",
    ),
    "the device is held by a process of before": (
        f"""\
{FRAMES}RuntimeError: Init hccl failed.
EJ0001: 2026-03-18-10:33:52.444.436 Failed to initialize the HCCP process.
        Solution: Wait for 10s after killing the last training process and try again.
""",
        Sign.DEVICE,
        None,
    ),
    "HCCL's own port is held": (
        f"""\
{FRAMES}RuntimeError: HCCL function error: HcclGetRootInfo, error code is 11
EJ0003: 2026-03-18-10:33:52.444.436 Failed to bind the IP port. Reason: They have been bound already.
""",
        Sign.DEVICE,
        None,
    ),
    "a warning of long ago, then an error of the code": (
        f"""\
[WARNING] ME(1:2,MainProcess):2026-11-23-13:26:20.509.000 [cache.py:4] No space left on device, cache is off
ConnectionResetError: Connection reset by peer (ignored, will try again)
epoch: 1 step: 5, loss is 0.7
{FRAMES}ValueError: labels of class 21 in image 7
[ERROR] {PREFIX}/cluster/rpc/tcp/connection.cc:79] SocketEventHandler] Broken pipe
""",
        None,
        "ValueError: labels of class 21 in image 7",
    ),
    "an error that was survived, then another": (
        f"{FRAMES}OSError: [Errno 28] No space left on device\nsaved elsewhere\n{FRAMES}ValueError: no\n",
        None,
        "ValueError: no",
    ),
    "an error that came of another": (
        f"{FRAMES}OSError: [Errno 28] No space left on device\n\n"
        "The above exception was the direct cause of the following exception:\n\n"
        f"{FRAMES}SaveError: the checkpoint was not saved\n",
        Sign.DISK_FULL,
        "OSError: [Errno 28] No space left on device SaveError: the checkpoint was not saved",
    ),
    "no traceback": (
        "Connection refused\nloading\nerror: voc.mindrecord: no such file; build it\n",
        None,
        "error: voc.mindrecord: no such file; build it",
    ),
    "no traceback, several errors in a row": (
        "error: a: is wrong\nready\n[ERROR]HCCL(1,p): Broken pipe\n[ERROR]HCCL(1,p): call trace: ret -> 9\n",
        Sign.LOST_PEER,
        "[ERROR]HCCL(1,p): Broken pipe [ERROR]HCCL(1,p): call trace: ret -> 9",
    ),
    "ranks that are not where the plan has them": (
        "error: rank 1 is not where the plan has it (1 of 2 ranks are not).\nplanned:\n  RANK  HOST\n",
        Sign.MISPLACED,
        None,
    ),
    "no error at all": ("No space left on device\nbye\n", None, ""),
}


@pytest.mark.parametrize("name", LOGS)
def test_the_last_error_alone_tells_the_reason(name):
    text, expected, reason = LOGS[name]
    log = [line for line in text.splitlines() if line]
    error = last_error(log)
    assert sign(error, log) is expected
    assert reason is None or one_line("\n".join(error)) == reason


def test_what_follows_an_exception_that_was_survived_is_not_its_message():
    log = [*FRAMES.splitlines(), "ValueError: no", *("going on" for _ in range(50)), "Broken pipe"]
    assert last_error(log) == ("ValueError: no", *("going on" for _ in range(MESSAGE_LINES - 1)))
    assert sign(last_error(log), log) is None


def test_a_traceback_whose_beginning_is_cut_off_still_has_its_error():
    log = [
        '  File "train.py", line 16, in <module>',
        "    world.sum()",
        "RuntimeError: Connection reset by peer",
    ]
    assert sign(last_error(log), log) is Sign.LOST_PEER


def test_a_long_error_is_cut():
    assert one_line("x" * 1000).endswith("x ...")
