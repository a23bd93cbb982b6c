"""Weights from a URL (a server on this machine) and from a fake of Hugging Face's hub."""

import contextlib
import functools
import hashlib
import http.server
import sys
import threading
import types

import pytest
import torch_vits

import vitcnn
from vitcnn import checkpoints

CONTENT = bytes(range(256)) * 5000
SHA = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT with ranges; /cut stops in the middle, /plain knows no ranges."""

    seen = None

    def do_GET(self):
        asked = self.headers.get("Range")
        self.seen.append((self.path, asked))
        start = int(asked.split("=")[1].rstrip("-")) if asked else 0
        if self.path.startswith("/absent"):
            self.send_error(404)
            return
        if self.path.startswith("/plain"):
            start = 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        stop = 100_000 if self.path.startswith("/cut") and not start else None
        self.wfile.write(CONTENT[start:stop])

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def serving(handler):
    """Yields the address of a server on this machine."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()
        thread.join()


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("VITCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Handler, "seen", [])
    with serving(Handler) as address:
        yield address


def files(tmp_path):
    return [p.name for p in (tmp_path / "cache").rglob("*") if p.is_file()]


def test_a_url_is_downloaded_once(server, tmp_path):
    url = f"{server}/folder/w%20a.npz?x=1#sha256={SHA.upper()}"
    source = checkpoints.locate(url)
    path = source.path
    assert path.read_bytes() == CONTENT and path.name == "w a.npz"
    assert source == checkpoints.Source(path, url, SHA)
    assert checkpoints.locate(url) == source
    assert Handler.seen == [("/folder/w%20a.npz?x=1", None)]
    path.write_bytes(b"damaged in the cache")
    assert checkpoints.locate(url).path.read_bytes() == CONTENT
    assert files(tmp_path) == ["w a.npz"]


@pytest.mark.parametrize("rest", ["cut", "plain"])
def test_a_download_that_was_cut_off_goes_on(server, tmp_path, rest):
    with pytest.raises(ConnectionError, match=r"cut off after 100000 of .* from 100000 bytes"):
        checkpoints.locate(f"{server}/cut/a.npz#sha256={SHA}")
    assert files(tmp_path) == ["a.npz.partial"]
    path = checkpoints.locate(f"{server}/{rest}/a.npz#sha256={SHA}").path
    assert path.read_bytes() == CONTENT and files(tmp_path) == ["a.npz"]
    assert Handler.seen[-1] == (f"/{rest}/a.npz", "bytes=100000-")


def test_another_hash_names_both(server, tmp_path):
    wrong = "0" * 64
    with pytest.raises(ValueError, match=f"its SHA-256 is {SHA}, expected {wrong}"):
        checkpoints.locate(f"{server}/a.npz#sha256={wrong}")
    assert files(tmp_path) == []
    # All bytes were there, but the process stopped before it looked at them.
    folder = tmp_path / "cache" / SHA[:16]
    folder.mkdir()
    (folder / "a.npz.partial").write_bytes(CONTENT)
    assert checkpoints.locate(f"{server}/a.npz#sha256={SHA}").path.read_bytes() == CONTENT


def test_urls_that_cannot_be_read(server):
    with pytest.raises(
        ConnectionError, match=r"404.*download the file another way and give its path"
    ):
        checkpoints.locate(f"{server}/absent.npz#sha256={SHA}")
    for url in (f"{server}/a.npz", f"{server}/a.npz#sha256=12", f"{server}/a.npz#md5={SHA}"):
        with pytest.raises(ValueError, match=r"a URL ends in #sha256=<64 hexadecimal digits>"):
            vitcnn.load("vit", "mini/4", url)
    with pytest.raises(ValueError, match="names no file"):
        checkpoints.locate(f"{server}/#sha256={SHA}")
    for address in ("hdfs://bucket/a.npz", "gs:/bucket/a.npz", "file:///a.npz"):
        with pytest.raises(ValueError, match=rf"weights '{address}'"):
            checkpoints.locate(address)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A fake of `hf_hub_download`: {file: content or error}, and what was asked of it."""
    library = pytest.importorskip("huggingface_hub")
    from huggingface_hub import errors

    class Hub:
        files = {}  # noqa: RUF012
        asked = []  # noqa: RUF012

        def download(self, repo, name, revision=None):
            self.asked.append((repo, name, revision))
            content = self.files.get(name)
            if content is None:
                raise errors.EntryNotFoundError(name)
            if not isinstance(content, bytes):
                raise content
            folder = tmp_path / "models--" / "snapshots" / COMMIT
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
            return str(folder / name)

    fake = Hub()
    fake.files, fake.asked, fake.errors = {}, [], errors
    monkeypatch.setattr(library, "hf_hub_download", fake.download)
    return fake


@pytest.mark.oracle
def test_a_repository_is_loaded_with_its_preprocessing_and_pinned(hub, tmp_path):
    made = torch_vits.state((8, 8))
    hub.files["model.safetensors"] = torch_vits.save(tmp_path / "a", made).read_bytes()
    hub.files["config.json"] = (
        b'{"pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1],'
        b' "input_size": [3, 32, 32]}}'
    )
    model = vitcnn.load("vit", "mini/4", "hf:timm/tiny", **torch_vits.SIZES, num_classes=5)
    assert model.preprocess.mean == (0.1, 0.2, 0.3)
    assert model.provenance["weights"]["source"] == f"hf:timm/tiny@{COMMIT}:model.safetensors"
    assert hub.asked[0] == ("timm/tiny", "model.safetensors", None)
    # of the same commit, whatever the branch is by now
    assert ("timm/tiny", "config.json", COMMIT) in hub.asked


@pytest.mark.oracle
def test_a_named_file_and_revision(hub):
    hub.files["old/weights.npz"] = b"x"
    source = checkpoints.locate("hf:google/vit@refs/pr/1:old/weights.npz")
    assert source.path.read_bytes() == b"x"
    assert source.address == f"hf:google/vit@{COMMIT}:old/weights.npz"
    assert hub.asked[0] == ("google/vit", "old/weights.npz", "refs/pr/1")
    hub.files = {"pytorch_model.bin": b"y"}
    source = checkpoints.locate("hf:google/vit")
    assert source.path.read_bytes() == b"y" and source.address.endswith(":pytorch_model.bin")


@pytest.mark.oracle
def test_what_the_hub_refuses_is_said(hub):
    errors = hub.errors
    response = types.SimpleNamespace(headers={}, request=None, status_code=401)
    for error, kind, message in (
        (errors.GatedRepoError("no", response=response), ValueError, "a/b is gated: accept"),
        (
            errors.RepositoryNotFoundError("no", response=response),
            ValueError,
            "no repository 'a/b'",
        ),
        (errors.RevisionNotFoundError("no", response=response), ValueError, "no revision 'v9'"),
        (errors.HfHubHTTPError("503", response=response), ConnectionError, "503.*give its path"),
        (errors.LocalEntryNotFoundError("no"), ConnectionError, "not in the cache .* its path"),
        (errors.BadRequestError("400", response=response), ConnectionError, "400.*give its path"),
        (OSError("no route"), ConnectionError, "no route.*give its path"),
    ):
        hub.files = {"model.safetensors": error}
        with pytest.raises(kind, match=message):
            checkpoints.locate("hf:a/b@v9")
    hub.files = {}
    message = (
        "a/b has no file 'model.safetensors' or 'model.safetensors.index.json' or "
        "'open_clip_model.safetensors' or 'pytorch_model.bin'; name the file"
    )
    with pytest.raises(ValueError, match=message):
        checkpoints.locate("hf:a/b")
    for source in ("hf:a", "hf:a/b/c", "hf:a/b@", "hf:"):
        with pytest.raises(ValueError, match="expected hf:<owner>/<repo>"):
            checkpoints.locate(source)


class RemoteProtocolError(Exception):
    """As in httpx, which huggingface_hub downloads with: it is no OSError."""


@pytest.mark.oracle
def test_a_connection_that_breaks_is_said(hub):
    broken = RemoteProtocolError("peer closed")
    hub.files = {"model.safetensors": broken}
    message = r"hf:a/b cannot be downloaded \(RemoteProtocolError: peer closed\);.*give its path"
    with pytest.raises(ConnectionError, match=message):
        checkpoints.locate("hf:a/b")
    hub.files = {"model.safetensors": b"x", "preprocessor_config.json": broken}
    message = r"preprocessor_config.json of a/b cannot be downloaded \(Remote.*give its path"
    with pytest.raises(ConnectionError, match=message):
        checkpoints.locate("hf:a/b")
    for error in (ImportError("hf_transfer"), ValueError("not a name of a repository")):
        for name in ("model.safetensors", "config.json"):
            hub.files = {"model.safetensors": b"x", name: error}
            with pytest.raises(type(error), match=str(error)):
                checkpoints.locate("hf:a/b")


class Hub(http.server.BaseHTTPRequestHandler):
    """Has one file, of which it sends a half, and then closes the connection."""

    name = "model.safetensors"

    def do_HEAD(self):
        self.start(404 if not self.path.endswith(self.name) else 200)

    def do_GET(self):
        if not self.path.endswith(self.name):
            self.start(404)
            return
        self.start(206 if self.headers.get("Range") else 200)
        if not self.headers.get("Range"):
            self.wfile.write(CONTENT[: len(CONTENT) // 2])

    def start(self, status):
        self.send_response(status)
        if status == 404:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{SHA}"')
        self.send_header("Content-Length", str(len(CONTENT) if status < 300 else 0))
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_the_real_library_and_a_server_that_cuts_off(monkeypatch, tmp_path, name):
    library = pytest.importorskip("huggingface_hub")
    from huggingface_hub import file_download

    monkeypatch.setattr(Hub, "name", name)
    monkeypatch.setattr(library.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(file_download, "time", types.SimpleNamespace(sleep=lambda seconds: None))
    if name != "model.safetensors":  # the weights are in the cache
        folder = tmp_path / "models--a--b"
        (folder / "snapshots" / COMMIT).mkdir(parents=True)
        (folder / "snapshots" / COMMIT / "model.safetensors").write_bytes(b"cached")
    with serving(Hub) as address:
        here = functools.partial(library.hf_hub_download, endpoint=address)
        monkeypatch.setattr(library, "hf_hub_download", here)
        with pytest.raises(ConnectionError, match=r"cannot be downloaded \(Remote.*give its path"):
            checkpoints.locate(f"hf:a/b@{COMMIT}")


@pytest.mark.oracle
def test_offline_takes_what_is_in_the_cache(hub):
    hub.files["model.safetensors"] = hub.errors.LocalEntryNotFoundError("offline")
    hub.files["pytorch_model.bin"] = b"here"
    hub.files["config.json"] = hub.errors.LocalEntryNotFoundError("offline")
    assert checkpoints.locate("hf:a/b").path.read_bytes() == b"here"


@pytest.mark.oracle
def test_the_real_library_offline(monkeypatch, tmp_path):
    library = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(library.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(library.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConnectionError, match=r"hf:timm/absent .*HF_HUB_OFFLINE is set.* its path"):
        checkpoints.locate("hf:timm/absent")
    folder = tmp_path / "models--timm--here"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text(COMMIT)
    (folder / "snapshots" / COMMIT).mkdir(parents=True)
    (folder / "snapshots" / COMMIT / "pytorch_model.bin").write_bytes(b"cached")
    source = checkpoints.locate("hf:timm/here")
    assert source.path.read_bytes() == b"cached"
    assert source.address == f"hf:timm/here@{COMMIT}:pytorch_model.bin"


def test_absent_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r'pip install "vitcnn\[hub\]"'):
        checkpoints.locate("hf:a/b")


@pytest.mark.parametrize("weights", [True, {"a": 1}, 3])
def test_what_is_no_address_is_named(weights):
    with pytest.raises(TypeError, match=rf"weights is a {type(weights).__name__}: expected a path"):
        vitcnn.load("vit", "mini/4", weights)
    with pytest.raises(TypeError, match=r"expected a path, hf:"):
        vitcnn.load(weights)


@pytest.mark.parametrize("path", ["./nowhere/", "~/nowhere", "/nowhere/at/all"])
def test_a_path_is_no_name_of_a_network(path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint file .*nowhere"):
        vitcnn.load(path)
