"""The front's loop, where the order of events decides."""

import socket

from mooring.serving.front import Front


def test_a_connection_that_comes_as_it_begins_to_drain_is_no_trouble(settings_of, capsys):
    front = Front(settings_of())
    listener = socket.socket()  # closed by the drain before its event, already fetched, is handled
    listener.close()
    front.accept(listener)
    assert capsys.readouterr().err == ""
