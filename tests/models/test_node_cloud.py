"""Which servers of `node.toml` are on machines of others: by their address, unless the file says it."""

from pathlib import Path

import pytest

from lumina.models.errors import BadConfiguration
from lumina.models.node import load_config, offer
from lumina.models.node_words import is_elsewhere


@pytest.mark.parametrize(
    ("host", "elsewhere"),
    [
        ("localhost", False),
        ("127.0.0.1", False),
        ("127.9.9.9", False),
        ("0.0.0.0", False),
        ("[::1]", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("172.32.0.1", True),
        ("192.168.1.7", False),
        ("169.254.3.4", False),
        ("[fe80::1%25eth0]", False),
        ("[fd12::7]", False),
        ("[::ffff:192.168.1.7]", False),
        ("[::ffff:8.8.8.8]", True),
        ("[2001:db8::1]", True),
        ("8.8.8.8", True),
        ("workstation", False),
        ("gpu.local", False),
        ("gpu.lan.", False),
        ("GPU.Internal", False),
        ("nas.home.arpa", False),
        ("local.example.com", True),
        ("notlocal", False),
        ("mylocal.example", True),
        ("api.example.com", True),
        ("127.0.0.1.example.com", True),
        ("localhost.example.com", True),
    ],
)
def test_an_address_tells_whose_machine_it_is(host: str, elsewhere: bool) -> None:
    """One's own are this machine, private networks and names that exist only at home; all the rest is not."""
    assert is_elsewhere(f"https://{host}:8443/v1") is elsewhere


def test_what_is_no_address_is_elsewhere() -> None:
    """In doubt a server is not one's own."""
    assert is_elsewhere("http://[broken/v1")
    assert is_elsewhere("http:///v1")


@pytest.mark.parametrize(
    ("url", "said", "cloud"),
    [
        ("https://api.example.com/v1", "", True),
        ("https://api.example.com/v1", "cloud = false", False),
        ("http://192.168.1.7:1234/v1", "", False),
        ("http://192.168.1.7:1234/v1", "cloud = true", True),
    ],
)
def test_the_file_overrides_the_address(tmp_path: Path, url: str, said: str, cloud: bool) -> None:
    """The offer says `cloud` by the address, or as the configuration wants it; files never are."""
    file = tmp_path / "node.toml"
    file.write_text(f'[[models]]\nid = "big"\nurl = "{url}"\n{said}\n')
    big, demo = offer(load_config(file, environ={}))
    assert big.cloud is cloud
    assert not demo.cloud


def test_a_file_is_no_cloud(tmp_path: Path) -> None:
    """`cloud` for a model file is a mistake, and is said."""
    file = tmp_path / "node.toml"
    file.write_text('[[models]]\nid = "mine"\npath = "nowhere.gguf"\ncloud = true\n')
    with pytest.raises(BadConfiguration, match="cloud: only for a server"):
        load_config(file, environ={})
