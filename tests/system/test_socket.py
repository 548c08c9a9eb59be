# SPDX-License-Identifier: GPL-2.0-or-later
"""The socket: JSON-RPC 2.0 to the letter, and clients of every temper."""

import fcntl
import json
import os
import signal
import socket
import stat
import subprocess
import threading

import pytest

import daemon
import rpc
from wait import PATIENCE, Stopwatch, wait_for

LINE_MAX = 1024 * 1024
DEPTH_MAX = 16
BATCH_MAX = 256


def raw(host, text, timeout=5.0):
    """The answer to one line as it is."""
    with host.rpc() as connection:
        return connection.exchange_raw(text.encode() if isinstance(text, str) else text, timeout)


def line(**members):
    return (json.dumps({"jsonrpc": "2.0", **members}) + "\n").encode()


def check_error(answer, code, ident=None):
    assert answer["jsonrpc"] == "2.0"
    assert answer["error"]["code"] == code, answer
    assert isinstance(answer["error"]["message"], str) and answer["error"]["message"]
    assert "result" not in answer
    assert answer["id"] == ident, answer


# Requests and answers

def test_a_call(host):
    answer = raw(host, line(id=1, method="network.list", params={}))
    assert set(answer) == {"jsonrpc", "id", "result"}
    assert answer["jsonrpc"] == "2.0" and answer["id"] == 1
    assert [n["name"] for n in answer["result"]] == ["default"]


def test_params_may_be_left_out(host):
    assert "result" in raw(host, line(id=1, method="network.list"))


@pytest.mark.parametrize("ident", [0, 1, -1, 2 ** 31, 2 ** 53, 1.5, "", "a", "1", "ä€😀", "with \"quotes\"", "x" * 500])
def test_ids_of_any_kind_come_back_as_they_were(host, ident):
    assert raw(host, line(id=ident, method="system.status"))["id"] == ident


def test_null_id_is_answered_with_null(host):
    answer = raw(host, '{"jsonrpc":"2.0","id":null,"method":"system.status"}\n')
    assert answer["id"] is None and "result" in answer


@pytest.mark.parametrize("ident", ["[]", "{}", "true", "[1]"])
def test_ids_that_are_none_are_refused(host, ident):
    check_error(raw(host, f'{{"jsonrpc":"2.0","id":{ident},"method":"system.status"}}\n'), -32600)


def test_one_answer_is_one_line(host):
    with host.rpc() as connection:
        connection.send_raw(line(id=1, method="network.list"))
        data = connection.receive_line()
        json.loads(data)
        assert connection.silent()


def test_notifications_are_not_answered(host):
    with host.rpc() as connection:
        connection.send_raw(line(method="network.create", params={"name": "blue"}))
        connection.send_raw(line(method="no.such.method"))
        connection.send_raw(line(method="network.create", params={"bad": 1}))
        connection.send_raw(line(id="last", method="network.get", params={"name": "blue"}))
        assert connection.receive()["id"] == "last"
        assert connection.silent()
    assert host.call("network.get", name="blue")["name"] == "blue", "the notification was not carried out"


def test_pipelined_requests_are_answered_in_order(host):
    with host.rpc() as connection:
        connection.send_raw(b"".join(line(id=i, method="network.create" if i % 2 else "network.list",
                                          params={"name": f"n{i}"} if i % 2 else {}) for i in range(40)))
        assert [connection.receive()["id"] for _ in range(40)] == list(range(40))
    assert len(host.call("network.list")) == 21


def test_pipelined_requests_see_what_was_done_before(host):
    with host.rpc() as connection:
        connection.send_raw(line(id=1, method="network.create", params={"name": "blue"}) +
                            line(id=2, method="network.get", params={"name": "blue"}) +
                            line(id=3, method="network.remove", params={"name": "blue"}) +
                            line(id=4, method="network.get", params={"name": "blue"}))
        answers = [connection.receive() for _ in range(4)]
    assert ["result" in a for a in answers] == [True, True, True, False]


def test_a_request_in_pieces(host):
    with host.rpc() as connection:
        for byte in line(id=7, method="system.status"):
            connection.send_raw(bytes([byte]))
        assert connection.receive()["id"] == 7


def test_white_space_and_carriage_returns(host):
    with host.rpc() as connection:
        connection.send_raw(b'  { "jsonrpc" : "2.0" , "id" : 1 , "method" : "system.status" }\t\r\n')
        assert connection.receive()["id"] == 1


def test_empty_lines_are_passed_over_or_parse_errors(host):
    with host.rpc() as connection:
        connection.send_raw(b"\n" + line(id=1, method="system.status"))
        answer = connection.receive()
        if answer["id"] is None:
            check_error(answer, -32700)
            answer = connection.receive()
        assert answer["id"] == 1


def test_members_of_any_order_and_escapes(host):
    answer = raw(host, '{"params":{"n\\u0061me":"def\\u0061ult"},"method":"network\\u002eget","id":1,"jsonrpc":"2.0"}\n')
    assert answer["result"]["name"] == "default"


# Refusals

@pytest.mark.parametrize("text", ["{", "nonsense", '{"jsonrpc":"2.0",}', '{"a":1}}', "{'a':1}", '{"jsonrpc":"2.0" "id":1}', "[1,",
                                  '{"id":1e}', '"\x01"', '{"a":"\\x"}', "\x00", '{"jsonrpc":"2.0","id":1,"method":"system.status"} x',
                                  '{"jsonrpc":"2.0","id":1,"method":"system.status"}{}'])
def test_parse_errors(host, text):
    with host.rpc() as connection:
        check_error(connection.exchange_raw(text.encode() + b"\n"), -32700)
        connection.send_raw(line(id=1, method="system.status"))
        assert connection.receive()["id"] == 1, "the connection does not go on after a parse error"


def test_bytes_that_are_no_utf8(host):
    with host.rpc() as connection:
        answer = connection.exchange_raw(b'{"jsonrpc":"2.0","id":1,"method":"network.get","params":{"name":"\xff\xfe"}}\n')
        assert answer["error"]["code"] in (-32700, -32602), answer
        raw_text = json.dumps(answer)
        assert raw_text.encode("utf-8")


@pytest.mark.parametrize("text", ['1', '"x"', 'null', 'true', '{}', '{"jsonrpc":"2.0","id":1}', '{"id":1,"method":"system.status"}',
                                  '{"jsonrpc":"1.0","id":1,"method":"system.status"}', '{"jsonrpc":2.0,"id":1,"method":"system.status"}',
                                  '{"jsonrpc":"2.0","id":1,"method":7}', '{"jsonrpc":"2.0","id":1,"method":null}',
                                  '{"jsonrpc":"2.0","id":1,"method":"system.status","params":7}',
                                  '{"jsonrpc":"2.0","id":1,"method":"system.status","params":"x"}', '[]'])
def test_invalid_requests(host, text):
    answer = raw(host, text + "\n")
    assert answer["error"]["code"] in ((-32600, -32602) if "params" in text else (-32600,)), answer


def test_positional_params_are_refused(host):
    answer = raw(host, line(id=1, method="network.get", params=["default"]))
    assert answer["error"]["code"] in (-32602, -32600), answer


@pytest.mark.parametrize("method", ["", "network", "network.", "network.creat", "network.create ", "Network.create", "rpc.discover",
                                    "x" * 1000])
def test_unknown_methods(host, method):
    check_error(raw(host, line(id=1, method=method)), -32601, 1)


@pytest.mark.parametrize("method, params, field", [
    ("network.create", {"name": "blue", "colour": "blue"}, "colour"),
    ("network.list", {"name": "x"}, "name"),
    ("network.create", {"name": "blue", "Subnet": "10.0.0.0/24"}, "Subnet"),
    ("guest.attach", {"name": "g", "kind": "netns", "networks": [{"name": "default", "colour": 1}]}, "networks[0].colour"),
    ("guest.attach", {"name": "g", "kind": "netns", "tap": {"size": 1}}, "tap.size"),
    ("network.create", {}, "name"),
    ("network.create", {"name": 7}, "name"),
    ("network.create", {"name": None}, "name"),
    ("network.create", {"name": "Blue"}, "name"),
    ("network.create", {"name": "blue", "mtu": "1500"}, "mtu"),
    ("network.create", {"name": "blue", "mtu": 1500.5}, "mtu"),
    ("network.create", {"name": "blue", "mtu": -1}, "mtu"),
    ("network.create", {"name": "blue", "internal": 1}, "internal"),
    ("network.create", {"name": "blue", "internal": "true"}, "internal"),
    ("network.create", {"name": "blue", "labels": []}, "labels"),
    ("network.create", {"name": "blue", "labels": {"a": 1}}, "labels"),
    ("network.create", {"name": "blue", "dns_servers": "1.1.1.1"}, "dns_servers"),
    ("network.create", {"name": "blue", "dns_servers": ["x"]}, "dns_servers[0]"),
    ("guest.attach", {"name": "g", "kind": "netns", "networks": {"name": "default"}}, "networks"),
    ("guest.attach", {"name": "g", "kind": "netns", "networks": ["default"]}, "networks[0]"),
    ("guest.attach", {"name": "g", "kind": "chair"}, "kind"),
    ("guest.attach", {"name": "g", "kind": "netns", "mode": "half"}, "mode"),
    ("guest.attach", {"name": "g", "kind": "netns", "pid": "1"}, "pid"),
    ("guest.attach", {"name": "g", "kind": "netns", "pid": 0}, "pid"),
    ("guest.attach", {"name": "g", "kind": "netns", "pid": "FREE", "ports": ["eighty"]}, "ports[0]"),
    ("guest.attach", {"name": "g", "kind": "netns", "pid": 1, "ports": [80]}, "ports[0]"),
])
def test_malformed_params_name_the_field(host, method, params, field):
    free = host.guest_space().pid
    before = host.kernel()
    answer = raw(host, line(id=1, method=method, params={k: free if v == "FREE" else v for k, v in params.items()}))
    check_error(answer, -32602, 1)
    assert answer["error"]["data"]["field"] == field
    assert not before.differences(host.kernel())
    assert host.guest_names() == [] and len(host.call("network.list")) == 1


def test_members_given_twice_are_refused_or_the_last_counts(host):
    answer = raw(host, '{"jsonrpc":"2.0","id":1,"method":"network.get","params":{"name":"nowhere","name":"default"}}\n')
    assert "error" in answer and answer["error"]["code"] in (-32600, -32602, -32700) or answer["result"]["name"] == "default"


def test_reasons_come_with_minus_32000(host):
    answer = raw(host, line(id=1, method="network.get", params={"name": "nowhere"}))
    check_error(answer, -32000, 1)
    assert answer["error"]["data"]["reason"] == "not_found"


# Batches

def test_batch(host):
    requests = [{"jsonrpc": "2.0", "id": 1, "method": "network.create", "params": {"name": "blue"}},
                {"jsonrpc": "2.0", "method": "network.create", "params": {"name": "green"}},
                {"jsonrpc": "2.0", "id": "x", "method": "network.get", "params": {"name": "green"}},
                {"jsonrpc": "2.0", "id": 3, "method": "no.such"}, 7, {"foo": "boo"}]
    answers = raw(host, json.dumps(requests) + "\n")
    assert isinstance(answers, list) and len(answers) == 5
    by_id = {str(a["id"]): a for a in answers if a["id"] is not None}
    assert by_id["1"]["result"]["name"] == "blue"
    assert by_id["x"]["result"]["name"] == "green"
    assert by_id["3"]["error"]["code"] == -32601
    assert [a["error"]["code"] for a in answers if a["id"] is None] == [-32600, -32600]


def test_empty_batch(host):
    check_error(raw(host, "[]\n"), -32600)


def test_batch_of_nonsense(host):
    answers = raw(host, "[1,2,3]\n")
    assert [a["error"]["code"] for a in answers] == [-32600] * 3 and all(a["id"] is None for a in answers)


def test_batch_of_notifications_is_not_answered(host):
    with host.rpc() as connection:
        connection.send([{"jsonrpc": "2.0", "method": "network.create", "params": {"name": f"n{i}"}} for i in range(3)])
        connection.send_raw(line(id="end", method="network.list"))
        answer = connection.receive()
        assert isinstance(answer, dict) and answer["id"] == "end" and len(answer["result"]) == 4


def test_batch_limit(host):
    request = {"jsonrpc": "2.0", "id": 1, "method": "system.status"}
    assert len(raw(host, json.dumps([request] * BATCH_MAX) + "\n", 15)) == BATCH_MAX
    check_error(raw(host, json.dumps([request] * (BATCH_MAX + 1)) + "\n"), -32600)


def test_batches_in_a_batch_are_refused(host):
    answers = raw(host, '[[{"jsonrpc":"2.0","id":1,"method":"system.status"}]]\n')
    assert len(answers) == 1 and answers[0]["error"]["code"] == -32600


# Limits

def test_the_longest_line(host):
    request = '{"jsonrpc":"2.0","id":1,"method":"system.status"'
    padding = LINE_MAX - len(request) - 1
    assert raw(host, request + " " * padding + "}\n", 10)["id"] == 1


def test_a_line_that_is_too_long_is_refused_once(host):
    """Nothing of it is kept, however long it goes on; the next line is served."""
    with host.rpc() as connection:
        connection.send_raw(b'{"jsonrpc":"2.0","id":1,"method":"' + b"x" * LINE_MAX)
        check_error(connection.receive(), -32600)
        for _ in range(30):
            connection.send_raw(b"x" * LINE_MAX)
        assert connection.silent(0.05), "one line is refused more than once"
        assert resident_kb(host) < 200_000, "a line without end is kept"
        connection.send_raw(b"\n" + line(id=2, method="system.status"))
        assert connection.receive()["id"] == 2


def resident_kb(host):
    with open(f"/proc/{host.daemon.pid}/status", encoding="ascii") as file:
        return next(int(row.split()[1]) for row in file if row.startswith("VmRSS"))


@pytest.mark.parametrize("opening, closing", [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("depth", [DEPTH_MAX + 1, 1000, 100000])
def test_depth_is_limited(host, opening, closing, depth):
    text = '{"jsonrpc":"2.0","id":1,"method":"network.get","params":{"name":' + opening * depth + "1" + closing * depth + "}}"
    with host.rpc() as connection:
        answer = connection.exchange_raw(text.encode() + b"\n")
        assert answer["error"]["code"] in (-32700, -32600, -32602), answer
    assert host.call("system.status")


def test_many_connections(host):
    connections = []
    try:
        for _ in range(100):
            connections.append(rpc.Rpc(host.socket_path))
        assert connections[0].call("system.status") and connections[-1].call("system.status")
    finally:
        for connection in connections:
            connection.close()


def test_one_connection_more_than_allowed_hurts_no_other(machine, internet):
    machine.configure("[daemon]\nmax_clients = 8\n")
    machine.start()
    first = machine.rpc()
    assert first.call("system.status")
    more = []
    for _ in range(30):
        try:
            more.append(rpc.Rpc(machine.socket_path))
        except OSError:
            break
    assert first.call("system.status"), "a crowd of clients locked out one that was there"
    for connection in more:
        connection.close()
    wait_for(lambda: can_call(machine), 3, "room for a new client")


def can_call(host):
    try:
        with rpc.Rpc(host.socket_path, timeout=1) as connection:
            return connection.call("system.status")
    except (OSError, rpc.Closed, rpc.RpcError):
        return False


# Tempers

def test_silent_clients_hinder_nobody(host):
    silent = [host.rpc() for _ in range(20)]
    for connection in silent[:10]:
        connection.send_raw(b'{"jsonrpc":"2.0",')
    with Stopwatch() as watch:
        assert host.call("system.status")
    assert watch.ms < 200 * PATIENCE


def test_clients_that_do_not_read_hinder_nobody(host):
    """Answers that nobody takes are not collected without end."""
    deaf = host.rpc()
    deaf.socket.setblocking(False)
    sent = 0
    request = line(id=1, method="system.doctor")
    try:
        while sent < 20000:
            deaf.socket.send(request)
            sent += 1
    except (BlockingIOError, BrokenPipeError, ConnectionResetError):
        pass
    with Stopwatch() as watch:
        assert host.call("network.list")
    assert watch.ms < 1500 * PATIENCE, f"{watch.ms:.0f} ms behind a client that does not read"
    assert resident_kb(host) < 600_000, f"moatd has grown to {resident_kb(host)} kB"


def test_subscriber_that_does_not_read_hinders_nobody(host):
    deaf = host.rpc().subscribe()
    for i in range(300):
        host.call("network.create", name="blue", dns=False)
        host.call("network.remove", name="blue")
        if i == 150:
            with Stopwatch() as watch:
                host.call("network.list")
            assert watch.ms < 500 * PATIENCE
    assert deaf.next_event()["type"]


def test_client_that_leaves_in_the_middle(host):
    for text in (b"", b"{", line(id=1, method="network.list"), line(id=1, method="network.create", params={"name": "blue"})):
        connection = host.rpc()
        connection.send_raw(text)
        connection.close()
    wait_for(lambda: len(host.call("network.list")) == 2, 2, "the complete request to be carried out")


def test_half_closed_client_gets_its_answers(host):
    with host.rpc() as connection:
        connection.send_raw(line(id=1, method="system.status") + line(id=2, method="system.status"))
        connection.socket.shutdown(socket.SHUT_WR)
        assert [connection.receive()["id"], connection.receive()["id"]] == [1, 2]
        assert connection.closed_by_peer()


def test_large_answers_arrive_whole(host):
    labels = {f"k{i:03}": "v" * 1000 for i in range(64)}
    for i in range(20):
        host.call("network.create", name=f"n{i}", labels=labels, dns=False)
    with host.rpc() as connection:
        for _ in range(5):
            assert len(connection.call("network.list")) == 21


def test_clients_at_once(host):
    wrong = []

    def work(number):
        try:
            with rpc.Rpc(host.socket_path) as connection:
                for i in range(50):
                    if connection.call("network.get", name="default")["name"] != "default":
                        wrong.append(number)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# Descriptors

def test_descriptors_that_nobody_asked_for_are_closed(host):
    def open_fds():
        return len(os.listdir(f"/proc/{host.daemon.pid}/fd"))

    host.call("system.status")
    before = open_fds()
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(10)]
    try:
        for _ in range(5):
            with host.rpc() as connection:
                connection.send({"jsonrpc": "2.0", "id": 1, "method": "system.status"}, fds)
                assert connection.receive()["id"] == 1
    finally:
        for fd in fds:
            os.close(fd)
    wait_for(lambda: open_fds() <= before + 1, 3, lambda: f"descriptors to be closed: {before} → {open_fds()}")


def test_too_many_descriptors(host):
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(100)]
    try:
        with host.rpc() as connection:
            try:
                for _ in range(3):
                    connection.send({"jsonrpc": "2.0", "method": "system.status"}, fds)
                connection.send({"jsonrpc": "2.0", "id": 1, "method": "system.status"})
                connection.receive()
            except (rpc.Closed, OSError):
                pass
    finally:
        for fd in fds:
            os.close(fd)
    assert host.call("system.status")
    assert len(os.listdir(f"/proc/{host.daemon.pid}/fd")) < 100


def test_each_line_has_its_own_descriptor(host):
    """Two pipelined attaches with one descriptor each: each guest gets its own namespace."""
    spaces = [host.guest_space() for _ in range(2)]
    with host.rpc() as connection:
        for i, space in enumerate(spaces):
            fd = os.open(space.net_path, os.O_RDONLY)
            connection.send({"jsonrpc": "2.0", "id": i, "method": "guest.attach", "params": {
                "name": f"g{i}", "kind": "netns", "netns_fd": True, "networks": [{"name": "default"}]}}, [fd])
            os.close(fd)
        answers = [connection.receive() for _ in range(2)]
    for answer, space in zip(answers, spaces):
        assert space.addresses("eth0") == [answer["result"]["endpoints"][0]["ip"]]


def test_a_descriptor_is_not_left_for_the_next_line(host):
    """What came with a line that did not name it must not be taken for another line's."""
    space = host.guest_space()
    fd = os.open(space.net_path, os.O_RDONLY)
    with host.rpc() as connection:
        connection.send({"jsonrpc": "2.0", "id": 1, "method": "system.status"}, [fd])
        connection.receive()
        connection.send({"jsonrpc": "2.0", "id": 2, "method": "guest.attach", "params": {
            "name": "g", "kind": "netns", "netns_fd": True, "networks": [{"name": "default"}]}})
        check_error(connection.receive(), -32602, 2)
    os.close(fd)


# Events

def test_events_follow_on_the_same_connection(host):
    with host.rpc() as connection:
        connection.send_raw(line(id=1, method="events.subscribe"))
        assert connection.receive() == {"jsonrpc": "2.0", "id": 1, "result": {}}
        host.call("network.create", name="blue")
        note = connection.receive()
        assert set(note) == {"jsonrpc", "method", "params"} and note["method"] == "event"
        assert note["params"]["network"] == "blue" and {"time", "type"} <= set(note["params"])
        connection.send_raw(line(id=2, method="system.status"))
        while (answer := connection.receive()).get("method"):
            pass
        assert answer["id"] == 2


def test_no_events_without_subscription(host):
    with host.rpc() as connection:
        connection.call("system.status")
        host.call("network.create", name="blue")
        assert connection.silent()


# The socket itself

def test_socket_file(host):
    info = os.stat(host.socket_path)
    assert stat.S_ISSOCK(info.st_mode)
    assert info.st_mode & 0o007 == 0, f"anybody may talk to moatd: {stat.filemode(info.st_mode)}"


def test_status(host):
    host.call("network.create", name="blue")
    host.attach_guest("box", "-p", "8080:80", "-p", "9000-9009:90-99")
    status = host.call("system.status")
    assert (status["networks"], status["guests"], status["ports"]) == (2, 1, 2)
    assert status["version"] in host.moat("--version").out
    assert 0 <= status["uptime_seconds"] < 60
    text = host.moat("status").out
    assert status["version"] in text


def test_doctor_is_content_with_a_sound_host(host):
    checks = host.call("system.doctor")
    assert checks and all({"name", "ok"} <= set(check) for check in checks)
    bad = [check for check in checks if not check["ok"]]
    assert bad == []
    outcome = host.moat("doctor")
    for check in checks:
        assert check["name"] in outcome.out


def test_passed_socket_is_used(machine, internet):
    """Socket activation: the socket was there before moatd, and clients that came early are served."""
    path = os.path.join(machine.temporary("activation"), "early.sock")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(8)
    early = rpc.Rpc(path)
    early.send_raw(line(id=1, method="system.status"))
    try:
        script = 'exec 3<&"$1"; shift; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"'
        child = machine.popen("bash", "-c", script, "bash", str(listener.fileno()), daemon.binary("moatd"), *machine.arguments(),
                              pass_fds=(listener.fileno(),), env=daemon.sanitizer_environment())
        try:
            assert early.receive(10)["id"] == 1
        finally:
            child.terminate()
            child.wait(10)
        assert os.path.exists(path), "moatd removed a socket that is not its own"
    finally:
        early.close()
        listener.close()
    machine.start()


def listener(family=socket.AF_UNIX, kind=socket.SOCK_STREAM, listens=True):
    found = socket.socket(family, kind)
    if listens:
        found.bind(("127.0.0.1", 0) if family == socket.AF_INET else f"\0moat-test-{os.getpid()}-{found.fileno()}")
        found.listen()
    return found


@pytest.mark.parametrize("passed", [[{"family": socket.AF_INET}], [{"listens": False}], [{"kind": socket.SOCK_DGRAM, "listens": False}], [{}, {}]],
                         ids=["inet", "not listening", "datagram", "two"])
def test_a_socket_that_is_no_use_is_refused(machine, passed):
    """A wrong .socket unit must not go unnoticed."""
    sockets = [listener(**arguments) for arguments in passed]
    fds = [fcntl.fcntl(found.fileno(), fcntl.F_DUPFD, 100) for found in sockets]
    script = "".join(f'exec {3 + i}<&"$1"; shift; ' for i in range(len(fds))) + f'export LISTEN_PID=$$ LISTEN_FDS={len(fds)}; exec "$@"'
    child = machine.popen("bash", "-c", script, "bash", *map(str, fds), daemon.binary("moatd"), *machine.arguments(), pass_fds=tuple(fds),
                          env=daemon.sanitizer_environment(), stderr=subprocess.PIPE, text=True)
    err = child.communicate(timeout=10 * PATIENCE)[1]
    for fd in fds:
        os.close(fd)
    for found in sockets:
        found.close()
    assert child.returncode == 1 and "LISTEN_FDS" in err and ".socket" in err and len(err.strip().splitlines()) == 1, err


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_signals_that_mean_nothing(host, number):
    os.kill(host.daemon.pid, number)
    host.call("network.list")
    if number == signal.SIGHUP:
        wait_for(lambda: "read at start" in host.daemon.log(), 2, "a word about the configuration")
    assert host.daemon.running()
    host.stop()
