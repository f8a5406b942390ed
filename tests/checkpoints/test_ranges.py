"""`checkpoints/ranges.py` against a server on 127.0.0.1: the bytes asked for, once each, or one clear line."""

import threading

import pytest

from armlet.checkpoints import ranges
from armlet.checkpoints.folder import CheckpointError, MissingFileError, silent
from armlet.checkpoints.ranges import ATTEMPTS, RemoteFile, UnreachableError
from hub_server import COMMIT, REPO, blob_id, serving, sha256

CONTENT = bytes(i * 7 % 251 for i in range(10_000))
FILE = "model.safetensors"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(ranges, "PAUSE", 0)
    monkeypatch.setenv("HF_TOKEN", "secret")
    (tmp_path / FILE).write_bytes(CONTENT)
    with serving(tmp_path) as hub:
        yield hub


def remote(hub, file=FILE):
    return RemoteFile(REPO, file, "main", hub.address)


def read(file, start, stop, advance=silent):
    return file.read(start, stop, advance).numpy().tobytes()


def refusal(hub, start=100, stop=5000):
    """The message of the error with which a range is refused: one line that names the repository."""
    with pytest.raises(CheckpointError) as caught:
        read(remote(hub), start, stop)
    assert "\n" not in str(caught.value)
    assert REPO in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, 10_000), (9_999, 10_000), (123, 4567)])
def test_a_range_is_that_of_the_file_and_nothing_more_is_sent(hub, start, stop):
    file, steps = remote(hub), []
    assert read(file, start, stop, steps.append) == CONTENT[start:stop]
    assert hub.sent() == sum(steps) == stop - start
    assert file.length == len(CONTENT)


def test_no_token_is_sent_where_the_environment_forbids_it(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    read(remote(hub), 0, 10)
    assert [asked.token for asked in hub.asked] == [None]


def test_an_empty_range_is_not_asked_for(hub):
    assert read(remote(hub), 5, 5) == b""
    assert hub.asked == []


# --- connections that break -----------------------------------------------------------------------------------------


def test_a_range_that_breaks_off_goes_on_from_the_byte_reached(hub):
    hub.cuts[FILE] = [1000, 0, 0, 0, 0, 3000, 0]
    steps = []
    assert read(remote(hub), 100, 8100, steps.append) == CONTENT[100:8100]
    assert hub.sent() == sum(steps) == 8000
    assert [asked.range for asked in hub.asked] == [
        "bytes=100-8099",
        *["bytes=1100-8099"] * 5,
        *["bytes=4100-8099"] * 2,
    ]


def test_a_hub_that_breaks_off_for_ever_is_given_up(hub):
    hub.cuts[FILE] = [1000] + [0] * 100
    assert "the hub at http://127.0.0.1" in refusal(hub)
    assert len(hub.asked) == 1 + ATTEMPTS


def test_the_pauses_between_attempts_double(hub, monkeypatch):
    pauses = []
    monkeypatch.setattr(ranges, "PAUSE", 0.5)
    monkeypatch.setattr(ranges.time, "sleep", pauses.append)
    hub.statuses[FILE] = [503] * 100
    refusal(hub)
    assert pauses == [0.5, 1, 2, 4]


def test_a_hub_that_falls_silent_is_asked_again(hub, monkeypatch):
    monkeypatch.setattr(ranges, "TIMEOUT", 0.2)
    hub.hung, hub.cuts[FILE] = threading.Event(), [1000]
    try:
        assert read(remote(hub), 0, 5000) == CONTENT[:5000]
    finally:
        hub.hung.set()
    assert hub.sent() == 5000


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_hub_that_is_busy_is_asked_again(hub, status):
    hub.statuses[FILE] = [status] * (ATTEMPTS - 1)
    assert read(remote(hub), 0, 10) == CONTENT[:10]
    hub.statuses[FILE] = [status] * ATTEMPTS
    assert f"HTTP {status}" in refusal(hub)


def test_no_hub_at_all_is_one_line(monkeypatch):
    monkeypatch.setattr(ranges, "PAUSE", 0)
    with pytest.raises(UnreachableError, match="check the name or the network"):
        read(RemoteFile(REPO, FILE, "main", "http://127.0.0.1:9"), 0, 10)


# --- answers that do not fit ----------------------------------------------------------------------------------------


def test_a_hub_that_ignores_ranges_is_named_and_its_answer_is_not_read(hub, monkeypatch):
    monkeypatch.setattr(ranges, "TIMEOUT", 0.5)  # whoever reads the answer waits for the rest of it, and asks again
    hub.ranges, hub.hung, hub.cuts[FILE] = False, threading.Event(), [10]
    try:
        message = refusal(hub)
    finally:
        hub.hung.set()
    assert f"the hub at {hub.address} does not serve ranges" in message
    assert f"`hf download {REPO}`" in message
    assert len(hub.asked) == 1


LIES = {
    "no Content-Range": None,
    "another start": "bytes 101-4999/10000",
    "another stop": "bytes 100-5000/10000",
    "no length": "bytes 100-4999/*",
    "a length before the stop": "bytes 100-4999/4000",
    "no numbers": "bytes",
}


@pytest.mark.parametrize("stated", LIES.values(), ids=LIES)
def test_an_answer_to_another_question_is_refused(hub, stated):
    hub.headers[FILE] = {"Content-Range": stated}
    assert "asked for bytes 100-4999" in refusal(hub)
    assert len(hub.asked) == 1


def test_a_range_beyond_the_file_is_refused(hub):
    assert "asked for bytes 9000-10000" in refusal(hub, 9000, 10_001)


def test_a_compressed_range_is_refused(hub):
    hub.headers[FILE] = {"Content-Encoding": "gzip"}
    assert "compressed" in refusal(hub)


def test_more_bytes_than_the_range_has_are_refused(hub):
    hub.extra[FILE] = b"more"
    assert "more bytes than the range has" in refusal(hub)


def test_fewer_bytes_than_the_range_has_are_asked_for_again(hub):
    hub.headers[FILE] = {"Content-Length": "10"}
    hub.cuts[FILE] = [10] * 100
    assert read(remote(hub), 0, 40) == CONTENT[:40]
    assert hub.sent() == 40


@pytest.mark.parametrize(
    "changed",
    [
        {"ETag": '"another"'},
        {"X-Linked-Etag": '"another"'},
        {"Content-Range": "bytes 10-19/10001"},
    ],
)
def test_a_file_replaced_between_two_ranges_is_refused(hub, changed):
    file = remote(hub)
    hub.headers[FILE] = {"X-Linked-Etag": '"one"'} if "X-Linked-Etag" in changed else {}
    read(file, 0, 10)
    hub.headers[FILE] = changed
    with pytest.raises(CheckpointError, match="was replaced while it was read"):
        read(file, 10, 20)


def test_a_file_replaced_between_two_pieces_of_a_range_is_refused(hub, monkeypatch):
    hub.cuts[FILE] = [1000]
    monkeypatch.setattr(ranges.time, "sleep", lambda _: hub.headers.update({FILE: {"ETag": '"another"'}}))
    assert "was replaced while it was read" in refusal(hub)


def test_a_weak_etag_names_the_same_file(hub):
    file = remote(hub)
    read(file, 0, 10)
    hub.headers[FILE] = {"ETag": f'W/"{blob_id(CONTENT)}"'}
    assert read(file, 10, 20) == CONTENT[10:20]


# --- redirects ------------------------------------------------------------------------------------------------------


def test_a_redirect_is_followed_and_the_token_stays_behind(hub, tmp_path):
    with serving(tmp_path) as store:
        hub.linked = store.address
        file = remote(hub)
        assert read(file, 100, 200) + read(file, 200, 300) == CONTENT[100:300]
        assert [asked.token for asked in hub.asked] == ["Bearer secret"] * 2
        assert [asked.token for asked in store.asked] == [None] * 2
        assert (hub.sent(), store.sent()) == (0, 200)


def test_behind_a_redirect_the_hubs_etag_counts_and_not_the_stores(hub, tmp_path):
    with serving(tmp_path) as store:
        hub.linked = store.address
        file = remote(hub)
        read(file, 0, 10)
        store.headers[FILE] = {"ETag": '"of another node"'}
        assert read(file, 10, 20) == CONTENT[10:20]
        hub.bodies[FILE] = b"replaced"
        with pytest.raises(CheckpointError, match="was replaced while it was read"):
            read(file, 20, 30)


# --- whole files ----------------------------------------------------------------------------------------------------


def test_a_whole_file_comes_with_its_commit(hub):
    assert remote(hub).whole() == (CONTENT, COMMIT)


def test_a_whole_file_that_breaks_off_is_asked_for_again(hub):
    hub.cuts[FILE] = [1000, 2000]
    assert remote(hub).whole() == (CONTENT, COMMIT)


@pytest.mark.parametrize("name", ["ETag", "X-Linked-Etag"])
@pytest.mark.parametrize("hashed", [blob_id, sha256])
def test_a_whole_file_is_checked_against_its_hash(hub, name, hashed):
    hub.headers[FILE] = {name: f'"{hashed(CONTENT)}"'}
    assert remote(hub).whole()[0] == CONTENT
    hub.headers[FILE] = {name: f'"{hashed(CONTENT[1:])}"'}
    with pytest.raises(CheckpointError, match="is not what its hash"):
        remote(hub).whole()


@pytest.mark.parametrize("etag", [None, '"1234"', f'"{"0" * 32}-2"', f'"{"g" * 40}"'])
def test_an_etag_that_is_no_hash_says_nothing(hub, etag):
    hub.headers[FILE] = {"ETag": etag}
    assert remote(hub).whole()[0] == CONTENT


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [lambda file: file.whole(), lambda file: read(file, 0, 8)], ids=["whole", "range"])
class TestRefusals:
    def test_a_missing_file_is_an_error_of_its_own(self, hub, way):
        with pytest.raises(MissingFileError, match=f"^{REPO}/nothing at {hub.address} is missing"):
            way(remote(hub, "nothing"))

    def test_an_unknown_repository_is_none_of_those(self, hub, way):
        with pytest.raises(CheckpointError, match="has no such model or does not give it to you") as caught:
            way(RemoteFile("nobody/nothing", FILE, "main", hub.address))
        assert not isinstance(caught.value, MissingFileError)
        assert "'nobody/nothing'" in str(caught.value)

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_refusal_says_what_to_do(self, hub, way, status):
        hub.statuses[FILE] = [status]
        with pytest.raises(CheckpointError, match=f"HTTP {status}.*`hf auth login`"):
            way(remote(hub))
        assert len(hub.asked) == 1

    @pytest.mark.parametrize("status", [400, 410, 416])
    def test_anything_else_is_one_line(self, hub, way, status):
        hub.statuses[FILE] = [status]
        with pytest.raises(CheckpointError, match=f"HTTP {status}"):
            way(remote(hub))
        assert len(hub.asked) == 1
