"""Digests of images: they follow the content and the label, and nothing else."""

import hashlib
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from vitcnn import data
from vitcnn.data import content


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("VITCNN_CACHE", str(tmp_path / "cache"))
    for i, name in enumerate(("cat/1", "cat/2", "dog/1")):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(i)).save(tmp_path / f"images/{name}.bmp")
    return tmp_path / "images"


def digests(path, **fields):
    source = data.load("folder", path=str(path), **fields)
    return content.digests(source, range(len(source)))


def test_a_digest_is_of_the_bytes_and_the_label(folder):
    expected = []
    for file, label in (("cat/1", 0), ("cat/2", 0), ("dog/1", 1)):
        sha = hashlib.blake2b((folder / f"{file}.bmp").read_bytes(), digest_size=16)
        expected.append(f"{sha.hexdigest()} {label}")
    assert digests(folder) == expected
    assert digests(folder, start=1, stop=3) == expected[1:]
    assert digests(folder, shots=1, draws=2)[0][-1] == "0"


def test_a_copy_has_the_same_digests_and_other_pixels_have_not(folder, tmp_path):
    before = digests(folder)
    shutil.copytree(folder, tmp_path / "copy")
    for file in (tmp_path / "copy").rglob("*.bmp"):
        os.utime(file, (1, 1))
    assert digests(tmp_path / "copy") == before
    Image.fromarray(picture(7)).save(folder / "cat/2.bmp")  # of the same size
    after = digests(folder)
    assert after[1] != before[1] and after[::2] == before[::2]


def test_digests_are_cached_until_a_file_is_written(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(content, "SETTLED", -1e9)  # the files count as old
    before = digests(folder)
    (cache,) = (tmp_path / "cache/digests").iterdir()
    rows = json.loads(cache.read_text())
    assert sorted(rows) == ["cat/1.bmp", "cat/2.bmp", "dog/1.bmp"]
    rows["cat/1.bmp"][0] = "from the cache"
    cache.write_text(json.dumps(rows))
    assert digests(folder)[0] == "from the cache 0"
    # The same inode, size and time of modification: only the inode's own time tells.
    file = folder / "cat/1.bmp"
    status = file.stat()
    written = file.read_bytes()
    file.write_bytes(written[:60] + bytes([written[60] ^ 1]) + written[61:])
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digests(folder)[0] not in ("from the cache 0", before[0])
    cache.write_text("damaged")
    assert digests(folder)[1:] == before[1:]


def test_young_files_are_not_cached(folder, tmp_path):
    digests(folder)  # written a moment ago, so they may change within a tick of the clock
    assert not (tmp_path / "cache").exists()


def test_sources_in_memory_have_digests_of_pixels_and_labels(tmp_path):
    images = np.stack([picture(i) for i in range(3)])
    np.savez(tmp_path / "a.npz", image=images, label=np.array([0, 1, 1]))
    source = data.load("npz", path=str(tmp_path / "a.npz"))
    before = content.digests(source, [0, 1, 2])
    assert before == [content.of_pixels(images[i], label) for i, label in enumerate((0, 1, 1))]
    # A source of the user's own has no such method and is read.
    plain = [
        {"image": image, "label": label} for image, label in zip(images, (0, 1, 1), strict=True)
    ]
    assert content.digests(plain, [0, 1, 2]) == before
    plain[1]["label"] = 0
    images[2, 0, 0, 0] ^= 1
    after = content.digests(plain, [0, 1, 2])
    assert after[0] == before[0] and after[1] != before[1] and after[2] != before[2]


def test_scenes_have_digests_without_being_drawn():
    a, longer, other = (
        data.load("scenes", size=size, noise=noise)
        for size, noise in ((5, 0.2), (9, 0.2), (5, 0.3))
    )
    assert content.digests(a, [1, 2]) == content.digests(longer, [1, 2])
    assert len({*content.digests(a, [1, 2]), *content.digests(other, [1, 2])}) == 4
