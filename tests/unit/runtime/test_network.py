"""What network instances get: ports, addresses, the resolver's file."""

from hypothesis import given
from hypothesis import strategies as st

from mooring import contract
from mooring.kit import namespaces
from mooring.runtime import network, sandbox
from mooring.runtime.network import Network, Server

OWN, HOSTS = Network(own=True), Network(own=False)
PLAIN = sandbox.System(mode=sandbox.Mode.PLAIN)
ROOT = sandbox.System(mode=sandbox.Mode.ROOT, bwrap="/usr/bin/bwrap")


def server(port: int) -> Server:
    return Server(url=f"http://192.0.2.9:{port}", port=port, address_file="/data/run/address")


@given(port=st.integers(1, 65535))
def test_the_port_of_the_server_inside_is_its_own_but_never_the_containers(port: int) -> None:
    inside = OWN.forward_port(server(port))
    assert inside != contract.PORT
    assert inside == port or port == contract.PORT
    assert OWN.endpoint_url(server(port)) == f"http://127.0.0.1:{inside}"


def test_in_the_hosts_network_the_server_is_where_it_is() -> None:
    assert HOSTS.forward_port(server(4747)) == 0
    assert HOSTS.endpoint_url(server(4747)) == "http://192.0.2.9:4747"


def test_without_a_server_nothing_is_forwarded() -> None:
    assert (OWN.forward_port(None), OWN.endpoint_url(None)) == (0, "")


def test_the_resolver_takes_the_hosts_place_and_its_search_domains_stay() -> None:
    of_host = "# made by hand\nnameserver 127.0.0.53\nsearch corp.example lab.example\noptions edns0\n"
    assert network.plan_resolver(of_host) == ("search corp.example lab.example\noptions edns0\nnameserver 10.0.2.3\n")
    assert OWN.resolver() == ""


def test_the_network_is_the_hosts_where_there_is_no_sandbox_or_it_was_asked_for() -> None:
    assert network.probe(PLAIN, "auto") == HOSTS
    assert network.probe(PLAIN, "none") == HOSTS
    assert network.probe(ROOT, "host") == HOSTS
    assert network.probe(ROOT, "none") == OWN


def test_slirp4netns_is_given_no_way_to_the_hosts_loopback() -> None:
    assert "--disable-host-loopback" in network._OPTIONS
    words = namespaces.plan_attach(("slirp4netns", *network._OPTIONS), network=5, user=-1, exit_fd=6)
    assert words[-4:] == ["--exit-fd=6", "--netns-type=path", "/proc/self/fd/5", "tap0"]
    assert "--userns-path=/proc/self/fd/7" in namespaces.plan_attach((), network=5, user=7, exit_fd=6)
