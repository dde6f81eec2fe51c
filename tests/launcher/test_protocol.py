from __future__ import annotations

import contextlib
import os

import pytest

from launcher import protocol
from launcher.protocol import Inbox, Outbox, encode


@pytest.fixture
def pipe():
    read, write = os.pipe()
    os.set_blocking(read, False)
    yield read, write
    for fd in (read, write):
        with contextlib.suppress(OSError):
            os.close(fd)


def test_messages_arrive_whole_however_they_are_cut(pipe):
    read, write = pipe
    inbox = Inbox(read)
    data = encode({"op": "a", "text": "ä\n"}) + encode({"op": "b"})
    got = []
    for position in range(len(data)):
        os.write(write, data[position : position + 1])
        got += inbox.read()
    assert got == [{"op": "a", "text": "ä\n"}, {"op": "b"}]


def test_what_is_no_message_is_kept_to_explain_a_silent_channel(pipe):
    read, write = pipe
    inbox = Inbox(read)
    os.write(write, b"Welcome to node1\n[1, 2]\n\n\xff\xfe\n" + encode({"event": "hello"}))
    assert inbox.read() == [{"event": "hello"}]
    assert inbox.noise == ["Welcome to node1", "[1, 2]", "\ufffd\ufffd"]
    os.write(write, b"[" * 20_000 + b"\n")  # deeper than an interpreter goes
    assert inbox.read() == []


def test_half_a_character_becomes_a_question_mark(pipe):
    read, write = pipe
    message = {"path": os.fsdecode(b"/voc\xff.ckpt"), "mood": "\U0001f600"}
    os.write(write, encode(message).replace(b"dcff", b"DCFF"))
    assert Inbox(read).read() == [{"path": "/voc?.ckpt", "mood": "\U0001f600"}]


def test_the_end_is_seen_and_half_a_line_is_no_message(pipe):
    read, write = pipe
    inbox = Inbox(read)
    os.write(write, encode({"op": "a"}) + b'{"op": "b"')
    os.close(write)
    assert inbox.drain() == [{"op": "a"}]
    assert inbox.eof


def test_drain_takes_all_that_is_there_and_does_not_wait(pipe, monkeypatch):
    monkeypatch.setattr(protocol, "READ_BYTES", 5)
    read, write = pipe
    inbox = Inbox(read)
    os.write(write, encode({"n": 1}) + encode({"n": 2}))
    assert inbox.drain() == [{"n": 1}, {"n": 2}]
    assert not inbox.eof


def test_a_line_without_end_costs_no_memory(pipe, monkeypatch):
    monkeypatch.setattr(protocol, "MAX_LINE_BYTES", 100)
    read, write = pipe
    inbox = Inbox(read)
    os.write(write, b"x" * 101)
    assert inbox.read() == []
    os.write(write, b"\n" + encode({"op": "next"}))
    assert inbox.read() == [{"op": "next"}]


def test_a_slow_reader_never_blocks_the_writer_and_gets_everything_in_order(pipe):
    read, write = pipe
    outbox = Outbox(write)
    for n in range(200):
        outbox.put({"n": n, "filling": "x" * 1000})
    assert outbox.pending  # a pipe holds 64 KiB
    inbox = Inbox(read)
    got = []
    while len(got) < 200:
        got += inbox.read()
        outbox.flush()
    assert [message["n"] for message in got] == list(range(200))
    assert not outbox.pending


def test_progress_is_dropped_for_a_stuck_reader_but_no_exit(pipe, monkeypatch):
    monkeypatch.setattr(protocol, "MAX_PENDING_BYTES", 1000)
    read, write = pipe
    outbox = Outbox(write)
    while not outbox.pending:
        outbox.put({"event": "status", "filling": "x" * 5000}, may_drop=True)
    outbox.put({"event": "status", "filling": "x" * 5000})
    outbox.put({"event": "status", "late": True}, may_drop=True)
    outbox.put({"event": "exit"})
    inbox = Inbox(read)
    got = []
    while {"event": "exit"} not in got:
        got += inbox.read()
        outbox.flush()
    assert not any("late" in message for message in got)


def test_a_reader_that_is_gone_is_noticed(pipe):
    read, write = pipe
    os.close(read)
    outbox = Outbox(write)
    outbox.put({"event": "exit"})
    outbox.drain()
    assert outbox.broken
    assert not outbox.pending
