"""Reading from a hub on 127.0.0.1 returns the bits of its folder, and transfers only necessary bytes."""

import copy
import json
import os
import subprocess
import sys
import threading

import pytest
import torch
from huggingface_hub import HfFileSystem

from armlet import Layer1
from armlet.attachment.sites import UnsupportedModelError
from armlet.checkpoints import hub as hub_module
from armlet.checkpoints import hub_requests
from armlet.checkpoints.checkpoint import open_checkpoint
from armlet.checkpoints.folder import INDEX_FILE, WEIGHTS_FILE
from hub_server import API, COMMIT, REPO, blob_id, serving
from tiny_checkpoints import only_in, refusal, saved, shards_of

IDS = torch.tensor([[7, 3, 7, 9], [3, 60, 0, 7]])


@pytest.fixture
def folder(tmp_path):
    """A sharded checkpoint of a tiny Llama."""
    saved(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """This machine's hub cache, empty."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def hub(folder, cache, monkeypatch):
    assert not cache.exists()
    monkeypatch.setattr("time.sleep", lambda _: None)  # huggingface_hub's pauses between attempts, and ours
    with serving(folder) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        yield hub


def fill(cache, folder, names, commit=COMMIT):
    """Puts files into the cache like the hub's own client: a snapshot's links to blobs."""
    model = cache / f"models--{REPO.replace('/', '--')}"
    snapshot = model / "snapshots" / commit
    for part in (model / "refs", model / "blobs", snapshot):
        part.mkdir(parents=True, exist_ok=True)
    (model / "refs" / "main").write_text(commit)
    for name in names:
        content = (folder / name).read_bytes()
        (model / "blobs" / blob_id(content)).write_bytes(content)
        (snapshot / name).symlink_to(model / "blobs" / blob_id(content))


def header_size(file):
    """The bytes of a safetensors file before its tensors."""
    return 8 + int.from_bytes(file.read_bytes()[:8], "little")


def assert_same(layer, folder, index=0):
    """Checks that a layer has the bits of the layer in the folder, and embeds and computes the same."""
    local = Layer1.from_checkpoint(folder, index)
    ours, theirs = layer.state_dict(), local.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    x = layer.embed(IDS)
    assert torch.equal(x, local.embed(IDS))
    assert torch.equal(layer(x), local(x))


# --- bits and bytes -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gemma2", "phi3", "stablelm"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", ["20KB", "1GB"])
def test_a_layer_from_the_hub_is_that_of_the_folder(family, dtype, size, hub, tmp_path):
    saved(tmp_path / "other", family, dtype=dtype, size=size)
    hub.folder = tmp_path / "other"
    assert_same(Layer1.from_checkpoint(REPO, 1), tmp_path / "other", 1)


@pytest.mark.parametrize("stored", [False, True], ids=["by the hub", "by a store behind it"])
def test_only_what_is_needed_is_sent(stored, hub, folder):
    with serving(folder) as store:
        hub.linked = store.address if stored else None
        layer = Layer1.from_checkpoint(REPO, 1)
        small = sum((folder / name).stat().st_size for name in ("config.json", INDEX_FILE))
        headers = sum(map(header_size, shards_of(folder, "layers.1.")))
        tensors = sum(tensor.nbytes for tensor in layer.state_dict().values())
        assert hub.sent() + store.sent() == small + headers + tensors

        (table,) = shards_of(folder, "embed_tokens")
        assert table not in shards_of(folder, "layers.1.")
        before = hub.sent() + store.sent()
        rows = layer.embed(IDS)[0, 0].nbytes * len(IDS.unique())
        assert hub.sent() + store.sent() - before == header_size(table) + rows
        assert_same(layer, folder, 1)
        assert (hub.sent() == small) is stored


def test_what_does_not_fit_is_refused_before_a_tensor_is_sent(hub, folder):
    config = json.loads((folder / "config.json").read_text())
    hub.bodies["config.json"] = json.dumps(config | {"intermediate_size": 40}).encode()
    with pytest.raises(UnsupportedModelError, match=r"expected mlp\.gate_proj\.weight of shape"):
        Layer1.from_checkpoint(REPO)
    asked = [asked for asked in hub.asked if asked.file.endswith(".safetensors") and asked.sent]
    assert asked
    headers = sum(header_size(folder / name) for name in {request.file for request in asked})
    assert sum(request.sent for request in asked) == headers


def test_a_row_is_fetched_once(hub):
    rows = open_checkpoint(REPO).rows
    rows(IDS)
    sent = hub.sent()
    rows(IDS.flip(0, 1))
    assert hub.sent() == sent
    rows(torch.tensor([[7, 8]]))
    assert hub.sent() == sent + 32 * 4


def test_layers_of_one_checkpoint_fetch_headers_once(hub):
    checkpoint = open_checkpoint(REPO)
    for index in (0, 1, 2):
        checkpoint.read(index)
    starts = [asked.file for asked in hub.asked if asked.range == "bytes=0-7" and asked.sent]
    assert len(starts) == len(set(starts)) > 1


@pytest.mark.usefixtures("hub")
def test_tensors_are_not_copied_after_their_arrival():
    for tensor in open_checkpoint(REPO).read(1).values():
        assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_all_requests_name_the_commit_that_main_had_at_first(hub):
    Layer1.from_checkpoint(REPO).embed(IDS)
    about = f"/api/models/{REPO}"
    assert hub.questions[0] == about
    assert set(hub.questions[1:]) == {f"{about}/revision/{COMMIT}", f"{about}/tree/{COMMIT}"}
    assert {(asked.method, asked.revision) for asked in hub.asked} == {("GET", COMMIT)}


def test_the_repository_is_asked_about_three_times_however_many_shards_there_are(hub):
    checkpoint = open_checkpoint(REPO)
    for index in (0, 1, 2):
        checkpoint.read(index)
    assert len(hub.questions) == 3


@pytest.mark.parametrize("commit", [None, "../../etc", "main"])
def test_a_hub_that_names_no_commit_is_refused(commit, hub):
    hub.commit = commit
    assert "does not say which commit it has" in refusal(lambda: Layer1.from_checkpoint(REPO))


def test_a_long_tensor_is_fetched_in_pieces_of_which_none_is_sent_twice(hub, folder, monkeypatch):
    monkeypatch.setattr(hub_module, "PIECE", 1000)
    layer = Layer1.from_checkpoint(REPO, 1)
    shards = shards_of(folder, "layers.1.")
    tensors = sum(tensor.nbytes for tensor in layer.state_dict().values())
    assert hub.sent(*(file.name for file in shards)) == tensors + sum(map(header_size, shards))
    assert all(asked.sent <= 1000 for asked in hub.asked)
    assert_same(layer, folder, 1)


@pytest.mark.usefixtures("hub")
def test_nothing_is_written(cache):
    Layer1.from_checkpoint(REPO).embed(IDS)
    assert not cache.exists()


@pytest.mark.usefixtures("hub")
def test_a_pipe_gets_no_progress_bar(capfd):
    Layer1.from_checkpoint(REPO)
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("hub")
def test_a_terminal_gets_a_progress_bar_of_the_layers_bytes(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    layer = Layer1.from_checkpoint(REPO, 1)
    shown = capsys.readouterr().err
    size = sum(tensor.nbytes for tensor in layer.state_dict().values())
    assert f"{REPO}, layer 1: 100%" in shown
    assert f"{size / 1000:.1f}k/{size / 1000:.1f}k" in shown


@pytest.mark.slow
def test_the_endpoint_is_that_of_the_environment_as_a_process_starts(hub, folder):
    """Sets variables that huggingface_hub reads at import, in a new process."""
    program = (
        "import sys, torch; from armlet import Layer1; layer = Layer1.from_checkpoint(sys.argv[1])\n"
        "print(layer(layer.embed(torch.tensor([[7, 3]]))).double().sum().item())"
    )
    home = {"HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.address + "/"}
    run = subprocess.run(
        [sys.executable, "-c", program, REPO], capture_output=True, text=True, env=os.environ | home, check=True
    )
    local = Layer1.from_checkpoint(folder)
    assert float(run.stdout) == pytest.approx(local(local.embed(torch.tensor([[7, 3]]))).double().sum().item())
    assert run.stderr == ""
    assert hub.of("config.json")


# --- faults ---------------------------------------------------------------------------------------------------------


def test_cut_connections_change_nothing(hub, folder):
    for file in folder.glob("model-*"):
        hub.cuts[file.name] = [3, -1, 100, 50, 7] * 3
    assert_same(Layer1.from_checkpoint(REPO, 1), folder, 1)
    assert any(len(hub.cuts[file.name]) < 15 for file in folder.glob("model-*"))


@pytest.mark.slow
def test_a_hub_that_falls_silent_is_asked_again(hub, folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    hub.hung = threading.Event()
    for file in folder.glob("model-*"):
        hub.cuts[file.name] = [3]
    try:
        assert_same(Layer1.from_checkpoint(REPO, 1), folder, 1)
    finally:
        hub.hung.set()


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("file", ["config.json", API])
def test_a_busy_hub_is_asked_again(file, status, hub, folder):
    hub.statuses[file] = [status] * (hub_requests.ATTEMPTS - 1)
    assert_same(Layer1.from_checkpoint(REPO), folder)
    hub.statuses[file] = [status] * 100
    assert f"HTTP {status}" in refusal(lambda: Layer1.from_checkpoint(REPO))


def test_a_hub_that_is_too_busy_for_the_listing_is_one_line(hub, folder):
    checkpoint = open_checkpoint(REPO)
    hub.statuses[API] = [503] * 100
    assert_same(Layer1.from_checkpoint(checkpoint), folder)  # the files of the commit are known by then
    assert "HTTP 503" in refusal(lambda: open_checkpoint(REPO))


def test_a_row_that_cannot_be_fetched_is_one_line(hub, folder):
    layer = Layer1.from_checkpoint(REPO)
    (table,) = shards_of(folder, "embed_tokens")
    layer.embed(IDS)
    hub.statuses[table.name] = [500] * 1000
    assert "HTTP 500" in refusal(lambda: layer.embed(torch.arange(60)[None]))


def test_a_hub_that_ignores_ranges_is_named(hub):
    hub.ranges = False
    message = refusal(lambda: Layer1.from_checkpoint(REPO))
    assert f"at {hub.address}: requested bytes 0 to 7, the hub sent" in message
    assert f"`hf download {REPO}`" in message


def test_more_bytes_than_were_asked_for_are_refused(hub, folder):
    file = only_in(folder, "layers.1.", "layers.0.")
    hub.extra[file.name] = b"more"
    assert "requested bytes 0 to 7, the hub sent 12 bytes" in refusal(lambda: Layer1.from_checkpoint(REPO, 1))


@pytest.mark.parametrize("fault", [KeyboardInterrupt, MemoryError, ValueError("ours"), TypeError("ours")])
@pytest.mark.parametrize("place", ["cat_file", "info"])
@pytest.mark.usefixtures("hub")
def test_what_is_no_network_fault_is_neither_repeated_nor_told_as_one(place, fault, monkeypatch):
    checkpoint, calls = open_checkpoint(REPO), []

    def fail(*_args, **_how):
        calls.append(1)
        raise fault

    monkeypatch.setattr(f"huggingface_hub.HfFileSystem.{place}", fail)
    with pytest.raises(fault if isinstance(fault, type) else type(fault)) as caught:
        checkpoint.read(1)
    assert not isinstance(caught.value, OSError)
    assert len(calls) == 1


def test_a_missing_shard_that_is_needed_is_named(hub, folder):
    file = only_in(folder, "layers.1.", "layers.0.")
    file.unlink()
    message = refusal(lambda: Layer1.from_checkpoint(REPO, 1))
    assert f"{REPO}/{file.name} at {hub.address} is missing" in message
    assert f"though {INDEX_FILE} names it" in message


def test_a_missing_shard_that_is_not_needed_is_not_asked_for(hub, folder):
    needed = shards_of(folder, "layers.1.") | shards_of(folder, "embed_tokens")
    others = set(folder.glob("*.safetensors")) - needed
    for file in others:
        file.unlink()
    Layer1.from_checkpoint(REPO, 1).embed(IDS)
    assert others
    assert {asked.file for asked in hub.asked} == {file.name for file in needed} | {"config.json", INDEX_FILE}


LIES = {
    "no JSON": lambda file: file[:8] + b"x" + file[9:],
    "too long a header": lambda file: b"\xff" * 8 + file[8:],
    "too long a file": lambda file: file + b"x",
    "too short a file": lambda file: file[:-1],
}


@pytest.mark.parametrize("change", LIES.values(), ids=LIES)
def test_a_header_that_lies_is_refused(change, hub, folder):
    file = only_in(folder, "layers.1.", "layers.0.")
    file.write_bytes(change(file.read_bytes()))
    message = refusal(lambda: Layer1.from_checkpoint(REPO, 1))
    assert message.startswith(f"{REPO}/{file.name} at {hub.address} is damaged")


def test_an_unknown_repository_is_one_line_with_what_to_do(hub):
    message = refusal(lambda: Layer1.from_checkpoint("nobody/nothing"))
    assert message.startswith(f"'nobody/nothing': the hub at {hub.address} has no such model")
    assert "check the name" in message


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("file", ["config.json", API])
def test_a_gated_repository_is_one_line_with_what_to_do(file, status, hub):
    hub.statuses[file] = [status]
    message = refusal(lambda: Layer1.from_checkpoint(REPO))
    assert f"HTTP {status}" in message
    assert "`hf auth login`" in message


@pytest.mark.parametrize("status", [400, 410])
@pytest.mark.parametrize("file", ["config.json", API])
def test_any_other_refusal_is_one_line(file, status, hub):
    hub.statuses[file] = [status]
    assert f"HTTP {status}" in refusal(lambda: Layer1.from_checkpoint(REPO))
    assert len(hub.of(file)) <= 1


@pytest.mark.parametrize("answer", [b"<html>Sign in</html>", b""])
def test_an_answer_that_is_no_hubs_is_one_line(answer, hub):
    hub.bodies[API] = answer
    assert f"the hub at {hub.address} cannot have it" in refusal(lambda: Layer1.from_checkpoint(REPO))


@pytest.mark.slow
@pytest.mark.parametrize("address", ["nonsense", "http://[bad", "ftp://127.0.0.1"])
@pytest.mark.usefixtures("cache")
def test_an_address_that_is_no_hubs_is_one_line(address, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", address)
    assert address in refusal(lambda: Layer1.from_checkpoint(REPO))


def test_the_token_is_sent_to_the_hub_and_not_to_the_store(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    with serving(folder) as store:
        hub.linked = store.address
        Layer1.from_checkpoint(REPO)
        assert {asked.token for asked in hub.asked} == {"Bearer secret"}
        assert {asked.token for asked in store.asked} == {None}


def test_no_token_is_sent_where_the_environment_forbids_it(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    Layer1.from_checkpoint(REPO)
    assert {asked.token for asked in hub.asked} == {None}


def test_a_repository_without_safetensors_is_refused_and_no_pickle_asked_for(hub, folder):
    (folder / INDEX_FILE).unlink()
    (folder / "pytorch_model.bin").touch()
    assert "pickle is never read" in refusal(lambda: Layer1.from_checkpoint(REPO))
    assert hub.of("pytorch_model.bin") == []


def test_a_repository_with_code_of_its_own_is_refused_and_the_code_not_asked_for(hub):
    hub.bodies["config.json"] = json.dumps({"model_type": "unheard-of", "auto_map": {"AutoConfig": "code.C"}}).encode()
    assert "needs Python code of its own" in refusal(lambda: Layer1.from_checkpoint(REPO))
    assert [asked.file for asked in hub.asked] == ["config.json"]


@pytest.mark.parametrize("name", ["../x.safetensors", "/x", "a\\b"])
def test_an_index_that_leads_out_of_the_repository_is_refused_before_anything_is_asked_for(name, hub):
    hub.bodies[INDEX_FILE] = json.dumps({"weight_map": {"model.layers.0.a": name}}).encode()
    assert "which leads out of the checkpoint" in refusal(lambda: Layer1.from_checkpoint(REPO))
    assert {asked.file for asked in hub.asked} == {"config.json", INDEX_FILE}


def test_an_id_that_no_hub_could_hold_is_refused(hub):
    assert "'no such id'" in refusal(lambda: Layer1.from_checkpoint("no such id"))
    assert hub.asked == []


# --- the cache ------------------------------------------------------------------------------------------------------


def test_a_cached_snapshot_is_read_without_a_byte_of_its_shards(hub, folder, cache):
    fill(cache, folder, os.listdir(folder))
    assert_same(Layer1.from_checkpoint(REPO), folder)
    assert hub.asked == []


def test_of_a_cached_part_only_the_rest_is_asked_for(hub, folder, cache):
    kept = only_in(folder, "layers.1.", "layers.0.")
    fill(cache, folder, ["config.json", INDEX_FILE, kept.name])
    assert_same(Layer1.from_checkpoint(REPO, 1), folder, 1)
    assert hub.of(kept.name) == hub.of(INDEX_FILE) == hub.of("config.json") == []
    assert hub.sent() > 0


@pytest.mark.usefixtures("hub")
def test_a_cached_snapshot_of_another_commit_is_not_read(folder, cache, tmp_path):
    saved(tmp_path / "old", seed=1)
    fill(cache, tmp_path / "old", os.listdir(folder), commit="0" * 40)
    assert_same(Layer1.from_checkpoint(REPO), folder)


@pytest.mark.parametrize("told", [True, False], ids=["told to be offline", "without a network"])
class TestOffline:
    @pytest.fixture(autouse=True)
    def _offline(self, told, cache, monkeypatch):
        monkeypatch.setattr(hub_requests, "PAUSE", 0)
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", told)

    def test_a_cached_model_is_read(self, folder, cache):
        fill(cache, folder, os.listdir(folder))
        assert_same(Layer1.from_checkpoint(REPO), folder)

    def test_a_model_that_is_not_cached_is_one_line(self, cache):
        message = refusal(lambda: Layer1.from_checkpoint(REPO))
        assert f"{REPO!r} is not a local folder, and the hub at http://127.0.0.1:9 did not provide it" in message

    def test_a_configuration_alone_is_no_model(self, folder, cache):
        fill(cache, folder, ["config.json"])
        message = refusal(lambda: Layer1.from_checkpoint(REPO))
        assert f"{REPO} has neither {WEIGHTS_FILE} nor {INDEX_FILE}: this machine's cache has none" in message

    def test_a_shard_that_is_not_cached_is_named(self, folder, cache):
        kept = only_in(folder, "layers.1.", "layers.0.")
        fill(cache, folder, [name for name in os.listdir(folder) if name != kept.name])
        Layer1.from_checkpoint(REPO, 0)
        message = refusal(lambda: Layer1.from_checkpoint(REPO, 1))
        assert kept.name in message
        assert "is not in this machine's cache" in message


def test_a_network_that_comes_back_does_not_mix_two_commits(hub, folder, cache):
    fill(cache, folder, ["config.json", INDEX_FILE])
    hub.statuses[API] = [503] * hub_requests.ATTEMPTS
    assert "is not in this machine's cache" in refusal(lambda: Layer1.from_checkpoint(REPO))
    assert hub.asked == []


@pytest.mark.usefixtures("hub")
def test_a_layer_of_a_hub_can_be_copied(folder):
    layer = Layer1.from_checkpoint(REPO)
    layer.embed(IDS)
    assert_same(copy.deepcopy(layer), folder)


@pytest.mark.usefixtures("hub")
def test_rows_are_fetched_side_by_side(monkeypatch):
    """Eight rows at a time: each waits until all eight are requested."""
    together = threading.Barrier(hub_module.THREADS, timeout=20)
    rows, cat_file = open_checkpoint(REPO).rows, HfFileSystem.cat_file
    rows(torch.tensor([[0]]))

    def wait(*args, **how):
        together.wait()
        return cat_file(*args, **how)

    monkeypatch.setattr(HfFileSystem, "cat_file", wait)
    rows(torch.arange(1, 1 + 2 * hub_module.THREADS)[None])
    assert not together.broken
