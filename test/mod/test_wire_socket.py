"""Documents and descriptors over real sockets; whatever comes, none is leaked."""

import array
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from osbuild_pika import wire
from osbuild_pika.wire import Connection, ProtocolError

WMEM_MAX = int(Path("/proc/sys/net/core/wmem_max").read_text())
Pair = tuple[Connection, Connection]


def open_fds() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def no_descriptor_is_leaked() -> Iterator[None]:
    before = open_fds()
    yield
    assert open_fds() == before


@pytest.fixture(name="pair")
def fixture_pair(no_descriptor_is_leaked: None) -> Iterator[Pair]:
    one, other = Connection.pair()
    yield one, other
    one.close()
    other.close()


def inode(fd: int) -> tuple[int, int]:
    facts = os.fstat(fd)
    return facts.st_dev, facts.st_ino


def received(connection: Connection) -> tuple[bytes, list[int]]:
    taken = connection.receive()
    assert taken is not None
    return taken


def survives(pair: Pair) -> bool:
    """Whether a next packet arrives as ever."""
    pair[0].send(b"next")
    return pair[1].receive() == (b"next", [])


def test_packets_keep_their_borders_both_ways(pair: Pair) -> None:
    pair[0].send(b"a")
    pair[0].send(b"bc")
    pair[1].send(b"d")
    assert [pair[1].receive(), pair[1].receive()] == [(b"a", []), (b"bc", [])]
    assert pair[0].receive() == (b"d", [])


@pytest.mark.parametrize("count", [1, 2, wire.MAX_FDS])
def test_descriptors_travel_with_a_document(pair: Pair, count: int) -> None:
    files = [os.memfd_create(f"n{n}") for n in range(count)]
    pair[0].send(b"{}", files)
    pair[1].send(*received(pair[1]))
    packet, back = received(pair[0])
    assert packet == b"{}"
    assert [inode(fd) for fd in back] == [inode(fd) for fd in files]
    assert not any(os.get_inheritable(fd) for fd in back)
    # What went there and back again is open twice more: there, and here.
    there = [int(fd) for fd in open_fds() if is_memfd(int(fd))]
    wire.close_all(there)


def is_memfd(fd: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:n")
    except FileNotFoundError:
        return False


def test_one_descriptor_too_many_is_an_error_of_the_sender(pair: Pair) -> None:
    with pytest.raises(OSError):
        pair[0].send(b"{}", [0] * (wire.MAX_FDS + 1))
    assert survives(pair)


@pytest.mark.parametrize("size", [1, 4096, 4097, 200_000, WMEM_MAX // 2, WMEM_MAX - 8192])
def test_a_payload_below_the_limit_is_one_packet(pair: Pair, size: int) -> None:
    payload = os.urandom(size)
    sender = threading.Thread(target=pair[0].send, args=(payload,))
    sender.start()
    assert pair[1].receive() == (payload, [])
    sender.join()


@pytest.mark.parametrize("size", [WMEM_MAX - 100, WMEM_MAX, WMEM_MAX + 1, 5_000_226])
def test_a_payload_around_the_limit_arrives(pair: Pair, size: int) -> None:
    payload = os.urandom(size)
    pair[0].send(payload)
    assert pair[1].receive() == (payload, [])


def test_a_large_payload_goes_through_a_memfd_as_recorded(pair: Pair) -> None:
    payload = b"x" * max(5_000_226, WMEM_MAX + 1)
    pair[0].send(payload, [0])
    packet, rights, _, _ = pair[1].socket.recvmsg(100, socket.CMSG_SPACE(8))
    assert packet == b"<args-via-fd>"
    memfd, other = array.array("i", rights[0][2])
    assert os.readlink(f"/proc/self/fd/{memfd}") == "/memfd:jsoncomm/payload (deleted)"
    assert os.lseek(memfd, 0, os.SEEK_CUR) == 0
    assert os.fstat(memfd).st_size == len(payload)
    assert inode(other) == inode(0)
    wire.close_all([memfd, other])


def test_a_large_payload_comes_with_its_other_descriptors(pair: Pair) -> None:
    payload = b"x" * (WMEM_MAX + 1)
    pair[0].send(payload, [0])
    packet, fds = received(pair[1])
    assert packet == payload
    assert [inode(fd) for fd in fds] == [inode(0)]
    wire.close_all(fds)


def directory() -> int:
    return os.open("/", os.O_RDONLY)


def pipe() -> int:
    end, other = os.pipe()
    os.close(other)
    return end


def file_on_a_disk() -> int:
    return os.open("/proc/self/status", os.O_RDONLY)


def too_large() -> int:
    fd = os.memfd_create("large")
    os.ftruncate(fd, wire.MAX_PAYLOAD + 1)
    return fd


def only_to_write() -> int:
    fd = os.memfd_create("payload")
    again = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)
    os.write(again, b"x")
    os.close(fd)
    return again


@pytest.mark.parametrize("make", [directory, pipe, file_on_a_disk, too_large, only_to_write])
def test_a_payload_that_is_no_memfd_is_refused(pair: Pair, make: Callable[[], int]) -> None:
    fd = make()
    pair[0].send(wire.VIA_FD, [fd, 0, 0])
    os.close(fd)
    with pytest.raises(ProtocolError, match="payload: "):
        pair[1].receive()
    assert survives(pair)


def test_a_payload_without_its_descriptor_is_refused(pair: Pair) -> None:
    pair[0].send(wire.VIA_FD)
    with pytest.raises(ProtocolError, match="descriptor of the payload is missing"):
        pair[1].receive()
    assert survives(pair)


@pytest.mark.parametrize("buffer", [None, bytearray(10)])
def test_a_packet_that_is_too_large_is_refused(buffer: bytearray | None) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pair = Connection(theirs), Connection(ours, limit=10, buffer=buffer)
    pair[0].send(b"x" * 11, [0])
    pair[0].send(b"y" * 10)
    with pytest.raises(ProtocolError, match="11 bytes; at most 10"):
        pair[1].receive()
    assert pair[1].receive() == (b"y" * 10, [])
    ours.close()
    theirs.close()


@pytest.mark.parametrize("packet", [b"{}", wire.VIA_FD])
@pytest.mark.parametrize("buffer", [None, bytearray(100)])
def test_descriptors_are_refused_where_none_are_taken(
    packet: bytes, buffer: bytearray | None
) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pair = Connection(theirs), Connection(ours, 100, False, buffer)
    pair[0].send(packet, [0])
    with pytest.raises(ProtocolError, match="they are not taken here"):
        pair[1].receive()
    assert survives(pair)
    ours.close()
    theirs.close()


def test_connections_that_share_a_buffer_keep_their_packets_apart() -> None:
    buffer = bytearray(100)
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    readers = [Connection(ours, 100, False, buffer) for ours, _ in pairs]
    for number, (_, theirs) in enumerate(pairs):
        theirs.send(b"%d" % number * (20 - number))
    packets = [received(reader)[0] for reader in readers]
    assert packets == [b"0" * 20, b"1" * 19]
    for ours, theirs in pairs:
        theirs.close()
        assert readers[pairs.index((ours, theirs))].receive() is None
        ours.close()


def test_descriptors_that_find_no_room_are_an_error(pair: Pair) -> None:
    pair[0].send(b"{}", [0, 1, 2])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
    try:
        with pytest.raises(ProtocolError, match="too many open here"):
            pair[1].receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert survives(pair)


def test_an_empty_packet_is_not_the_end(pair: Pair) -> None:
    pair[0].send(b"")
    with pytest.raises(ProtocolError, match="message empty"):
        pair[1].receive()
    assert survives(pair)


def test_an_empty_packet_with_descriptors_is_not_the_end(pair: Pair) -> None:
    pair[0].send(b"", [0])
    with pytest.raises(ProtocolError, match="message empty"):
        pair[1].receive()
    assert survives(pair)


def test_an_empty_packet_hides_none_that_a_closed_peer_sent_after_it(pair: Pair) -> None:
    pair[0].send(b"")
    pair[0].send(b"last")
    pair[0].close()
    with pytest.raises(ProtocolError, match="message empty"):
        pair[1].receive()
    assert pair[1].receive() == (b"last", [])
    assert pair[1].receive() is None


def test_the_end_is_none_again_and_again(pair: Pair) -> None:
    pair[0].send(b"last")
    pair[0].close()
    assert pair[1].receive() == (b"last", [])
    assert pair[1].receive() is None
    assert pair[1].receive() is None


def test_the_last_packets_of_a_peer_that_left_ours_unread_arrive(pair: Pair) -> None:
    pair[1].send(b"never read")
    pair[0].send(b"last")
    pair[0].close()
    assert pair[1].receive() == (b"last", [])
    assert pair[1].receive() is None


def test_sending_to_a_peer_that_is_gone_is_an_error(pair: Pair) -> None:
    pair[1].close()
    with pytest.raises(BrokenPipeError):
        pair[0].send(b"x")


def test_a_signal_handler_does_not_disturb_waiting(pair: Pair) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: seen.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    sender = threading.Timer(0.2, pair[0].send, (b"late",))
    sender.start()
    try:
        assert pair[1].receive() == (b"late", [])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        sender.join()
    assert seen


def test_sending_to_a_peer_that_does_not_read_ends_in_time(pair: Pair) -> None:
    def fill() -> None:
        while True:
            pair[0].send(b"x" * 1000, timeout_s=0.05)

    with pytest.raises(BlockingIOError):
        fill()
    assert received(pair[1])[0] == b"x" * 1000


def test_a_timeout_of_one_packet_is_none_of_the_next(pair: Pair) -> None:
    option = (socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16)
    pair[0].send(b"x", timeout_s=0.05)
    with_limit = pair[0].socket.getsockopt(*option)
    pair[0].send(b"x")
    without = pair[0].socket.getsockopt(*option)
    assert any(with_limit)
    assert not any(without)


@pytest.mark.parametrize("depth", [1, 20])
def test_a_socket_may_lie_deep(tmp_path: Path, depth: int) -> None:
    place = tmp_path.joinpath(*["directory"] * depth)
    place.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        wire.at_directory(str(place), "a-socket", listening.bind)
        listening.listen()
        client = Connection.connect(str(place / "a-socket"))
        server = Connection(listening.accept()[0])
    client.send(b"hello")
    assert server.receive() == (b"hello", [])
    client.close()
    server.close()


def test_a_socket_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Connection.connect(str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError):
        Connection.connect(str(tmp_path / "none" / "none"))
