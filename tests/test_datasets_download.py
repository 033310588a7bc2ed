"""Downloads, from a server on this machine that can be told to stop early."""

import hashlib
import http.server
import threading

import numpy as np
import pytest
from data_files import cifar_records, tar_of

from intsmooth import cli
from intsmooth.datasets import cifar10, open_dataset
from intsmooth.datasets.download import data_folder, fetch
from intsmooth.errors import DataError, ResourceError

CONTENT = bytes(np.random.default_rng(20240607).integers(0, 256, 700_000, dtype=np.uint8))
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    ranges, sent_at_most, asked, content = True, None, [], CONTENT

    def do_GET(self):
        header = self.headers.get("Range")
        self.asked.append(header)
        start = int(header[6:-1]) if header and self.ranges else 0
        body = self.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.sent_at_most])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    handler = type("FreshHandler", (Handler,), {"asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        handler.url = f"http://127.0.0.1:{running.server_port}/file.bin"
        yield handler
        running.shutdown()
        thread.join()


def test_a_broken_download_continues_where_it_stopped(server, tmp_path):
    target, seen = tmp_path / "deep" / "file.bin", []
    server.sent_at_most = 300_000
    with pytest.raises(DataError, match="300000 of 700000 bytes are kept"):
        fetch(server.url, target, DIGEST, len(CONTENT))
    assert not target.exists()
    server.sent_at_most = None
    assert fetch(server.url, target, DIGEST, len(CONTENT), lambda done, size: seen.append((done, size))) == target
    assert target.read_bytes() == CONTENT and server.asked == [None, "bytes=300000-"]
    assert seen[0][0] > 300_000 and seen[-1] == (700_000, 700_000)
    assert list(target.parent.iterdir()) == [target]
    fetch(server.url, target, DIGEST, len(CONTENT))
    assert len(server.asked) == 2  # what is there is not fetched again


def test_the_command_line_downloads_cifar10_once_and_shows_how_far_it_is(tmp_path, monkeypatch, capsys):
    """From an interrupted first attempt to certificates, all through `intsmooth certify --data cifar10`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INTSMOOTH_DATA", str(tmp_path / "data"))
    labels, images, records = cifar_records(90, 4)
    archive = tar_of(tmp_path / "served.tar.gz", {"cifar-10-batches-bin/test_batch.bin": records}).read_bytes()
    handler = type("ArchiveHandler", (Handler,), {"asked": [], "content": archive, "sent_at_most": 100_000})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setattr(cifar10, "URL", f"http://127.0.0.1:{running.server_port}/cifar-10-binary.tar.gz")
        monkeypatch.setattr(cifar10, "SHA256", hashlib.sha256(archive).hexdigest())
        monkeypatch.setattr(cifar10, "SIZE", len(archive))
        certify = "certify cifar10-resnet20-s0.25 --data cifar10 --max 2 --n 20 --seed 1 --out r.tsv".split()
        assert cli.main(certify) == DataError.exit_code
        assert f"100000 of {len(archive)} bytes are kept" in capsys.readouterr().err
        handler.sent_at_most = None
        assert cli.main(certify) == 0
        err = capsys.readouterr().err
        assert "MB, 100 %" in err and "downloading" in err
        running.shutdown()
        thread.join()
    assert handler.asked == [None, "bytes=100000-"]
    assert [row.split("\t")[:2] for row in (tmp_path / "r.tsv").read_text().splitlines()[1:]] == [
        [str(i), str(labels[i])] for i in range(2)
    ]
    assert cli.main([*certify[:-1], "again.tsv"]) == 0  # the server is gone, the file is there
    assert np.array_equal(open_dataset("cifar10")[1].image, images[1])


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1000])
    server.ranges = False
    assert fetch(server.url, tmp_path / "file.bin", DIGEST, len(CONTENT)).read_bytes() == CONTENT


def test_a_wrong_digest_is_refused_and_removed(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(b"\0" * 1000)
    with pytest.raises(DataError, match="required is"):
        fetch(server.url, tmp_path / "file.bin", DIGEST, len(CONTENT))
    assert list(tmp_path.iterdir()) == []


def test_without_network_the_message_says_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "URL", "http://127.0.0.1:9/cifar-10-binary.tar.gz")
    monkeypatch.setenv("INTSMOOTH_DATA", str(tmp_path / "data"))
    place = tmp_path / "data" / "cifar-10-binary.tar.gz"
    with pytest.raises(DataError, match="Without network: get cifar-10-binary.tar.gz elsewhere and put it at") as error:
        open_dataset("cifar10")
    assert str(place) in str(error.value)
    labels, _, records = cifar_records(4, 0)
    tar_of(place, {"cifar-10-batches-bin/test_batch.bin": records})
    assert open_dataset("cifar10").labels.tolist() == labels.tolist()
    with pytest.raises(DataError, match=r"Caltech-101 is not in"):
        open_dataset("caltech101")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResourceError, match="set INTSMOOTH_DATA"):
        fetch("http://127.0.0.1:9/x", tmp_path / "file" / "x", DIGEST, 1)


def test_where_data_is_kept(monkeypatch, tmp_path):
    monkeypatch.delenv("INTSMOOTH_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data_folder() == tmp_path / "intsmooth"
