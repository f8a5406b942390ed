"""Keys, proxies and certificates of the environment: used as meant, named in errors, and never shown."""

import ssl

import pytest
from huggingface_hub import close_session

from armlet.checkpoints.hub import Hub
from armlet.checkpoints.network import (
    CERTIFICATES,
    PROXIES,
    clean_key,
    connecting,
    proxies,
    read_key,
    without_passwords,
)
from armlet.redistribution.errors import ArgumentError


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in (*PROXIES, *map(str.lower, PROXIES), *CERTIFICATES):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "text",
    [
        "k-42",
        "k-42\n",
        "k-42\r\n",
        "  k-42\t",
        "\ufeffk-42",
        "k-\u200b42\u2060",
        "\x00k-42\x7f",
        "\xa0k-42\u3000\u2028",
    ],
    ids=ascii,
)
def test_a_key_is_the_same_whatever_a_file_or_a_copied_text_adds(text):
    assert clean_key("KEY", text) == "k-42"


@pytest.mark.parametrize("text", ["", " \n", "\ufeff"], ids=ascii)
def test_a_key_of_nothing_is_none(text, monkeypatch):
    monkeypatch.setenv("KEY", text)
    assert read_key("KEY") is None
    assert read_key("OTHER_KEY") is None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("secret\u00e9secret", "character 7 of the key is not ASCII"),
        ("secret\nsecret", "character 7 of the key is white space or a control character"),
        ("\u201csecret\u201d", "character 1 of the key is not ASCII"),
        ("secret secret", "character 7 of the key is white space or a control character"),
    ],
    ids=ascii,
)
def test_a_key_that_no_header_can_have_is_refused_without_showing_it(text, named):
    with pytest.raises(ArgumentError, match=rf"^KEY: {named}; copy the key again$") as caught:
        clean_key("KEY", text)
    assert "secret" not in str(caught.value)
    assert "ACUTE" not in str(caught.value)


def test_passwords_of_addresses_are_not_shown():
    text = "from http://me:p@ss@host:1/a to https://host/b@c and socks5://me@host"
    assert without_passwords(text) == "from http://…@host:1/a to https://host/b@c and socks5://…@host"


@pytest.mark.parametrize(
    ("setting", "error", "message"),
    [
        ("ALL_PROXY=socks5://me:secret@host:1", ImportError("no socksio"), r"ALL_PROXY=socks5://…@host:1 .*socksio`\)"),
        ("https_proxy=gopher://me:secret@host", ValueError("gopher://me:secret@host"), "https_proxy=.*gopher://…@host"),
        ("SSL_CERT_FILE=/no/ca.pem", FileNotFoundError(2, "No such file"), "SSL_CERT_FILE=/no/ca.pem .*No such file"),
        ("SSL_CERT_DIR=/etc", ssl.SSLError(1, "no certificate"), "SSL_CERT_DIR=/etc .*no certificate"),
    ],
)
def test_a_setting_that_keeps_a_client_from_connecting_is_named(monkeypatch, setting, error, message):
    monkeypatch.setenv(*setting.split("=", 1))
    said = f"^hub cannot be reached with {message}.*: correct or unset it$"
    with pytest.raises(ArgumentError, match=said) as caught, connecting("hub"):
        raise error
    assert "secret" not in str(caught.value)


def test_an_error_that_no_setting_explains_stays():
    with pytest.raises(ValueError, match=r"^mine$"), connecting("hub"):
        raise ValueError("mine")


def test_proxies_are_listed_without_passwords(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://me:secret@host:1")
    assert proxies() == ["http_proxy=http://…@host:1"]


def test_a_hubs_password_and_token_are_not_shown(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://me:secret@127.0.0.1:9")
    monkeypatch.setattr("armlet.checkpoints.hub_requests.ATTEMPTS", 1)
    monkeypatch.setenv("HF_TOKEN", "hf_secret\n")
    with pytest.raises(Exception, match=r"the hub at http://…@127\.0\.0\.1:9 did not provide it") as caught:
        Hub("somebody/tiny")
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", "hf_\x01secret")
    with pytest.raises(ArgumentError, match=r"^HF_TOKEN: character 4 of the key is white space or a control"):
        Hub("somebody/tiny")


@pytest.mark.parametrize(("name", "value"), [("ALL_PROXY", "socks://127.0.0.1:9"), ("SSL_CERT_FILE", "/no/ca.pem")])
def test_a_hub_names_the_setting_that_keeps_it_from_connecting(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    close_session()  # which another test opened
    with pytest.raises(ArgumentError, match=f"^the hub at .* cannot be reached with {name}={value} in the environment"):
        Hub("somebody/tiny")
