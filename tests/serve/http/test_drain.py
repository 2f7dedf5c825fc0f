"""A listening socket that closes: no new connection is accepted, and no accepted one is reset."""

import socket
import sys

import pytest

from bertport.serve.http.drain import take_on_no_more


@pytest.mark.skipif(sys.platform != "linux", reason="the filter is Linux's")
def test_those_in_the_queue_come_and_nobody_else():
    with socket.create_server(("127.0.0.1", 0), backlog=8) as server:
        address = server.getsockname()
        early = [socket.create_connection(address, timeout=5) for _ in range(3)]
        take_on_no_more(server)
        with pytest.raises(TimeoutError):
            socket.create_connection(address, timeout=0.5)
        server.settimeout(0.2)
        accepted = [server.accept()[0] for _ in early]
        with pytest.raises(TimeoutError):
            server.accept()
    for number, (client, ours) in enumerate(zip(early, accepted, strict=True)):
        client.sendall(bytes([number]))  # packets of open connections pass
        assert ours.recv(1) == bytes([number])
        ours.sendall(b"answer")
        assert client.recv(6) == b"answer"
        client.close()
        ours.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)
