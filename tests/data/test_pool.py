"""The pool: a group is loaded by all threads, in order, with the same bits for any workers."""

import subprocess
import sys
import threading

import numpy as np
import pytest
import running

from vitcnn import config as configs
from vitcnn import data
from vitcnn.data import Preprocess, pipeline, pool


def double(items):
    return [2 * item for item in items]


def pairs(items, values):
    return list(zip(items, values, strict=True))


def test_every_thread_loads_images_of_the_same_group():
    """Four images are loaded only if four threads are inside `load` at once."""
    together = threading.Barrier(4, timeout=20)

    def load(items):
        if items[0] < 4:
            together.wait()
        return double(items)

    groups = [[0, 1, 2, 3], [4, 5]]
    loaded = list(pool.load_ahead(load, groups, pairs, threads=4, prefetch=0))
    assert loaded == [[(0, 0), (1, 2), (2, 4), (3, 6)], [(4, 8), (5, 10)]]


@pytest.mark.parametrize("threads", [0, 1, 3])
@pytest.mark.parametrize("prefetch", [0, 2])
def test_groups_come_in_order_whatever_takes_longest(threads, prefetch):
    release = threading.Event()

    def load(items):
        if threads > 1 and items[0] == 0:
            assert release.wait(20)
        if items[-1] == 9 or threads == 1:
            release.set()
        return double(items)

    groups = [list(range(k, k + 10)) for k in (0, 20, 40)]
    loaded = list(pool.load_ahead(load, groups, pairs, threads=threads, prefetch=prefetch))
    assert loaded == [[(i, 2 * i) for i in group] for group in groups]


def test_a_stream_that_is_closed_loads_no_more():
    read = []

    def load(items):
        read.extend(items)
        return items

    stream = pool.load_ahead(load, ([i] for i in range(10**9)), pairs, threads=2, prefetch=3)
    next(stream)
    stream.close()
    assert len(read) <= 5


@pytest.mark.parametrize("name", ["threads", "workers", "prefetch"])
def test_numbers_below_zero_are_errors_at_once(name):
    with pytest.raises(ValueError, match=f"{name} is -1: expected 0 or more"):
        pool.load_ahead(double, [[1]], pairs, **{name: -1})


def test_what_a_process_cannot_get_is_an_error_at_once():
    with pytest.raises(ValueError, match=r"cannot be sent to other processes .* set workers to 0"):
        pool.load_ahead(lambda items: items, [[1]], pairs, workers=1)


def test_threads_of_the_machine(monkeypatch):
    for cores, threads, workers in ((1, 1, 0), (16, 16, 0), (48, 16, 48), (224, 16, 64)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, n=cores: set(range(n)), raising=False)
        assert pool.threads_of_machine() == threads
        assert pool.workers_of_machine(decodes=True) == workers
        assert pool.workers_of_machine(decodes=False) == 0


class Decoding:
    decodes, labelled, provenance = True, True, {}

    def __len__(self):
        return 4


def test_workers_of_the_machine_load_what_has_to_be_decoded(monkeypatch):
    """Also in a part of a folder; not images in memory, nor any if the config says so."""
    chosen = []
    monkeypatch.setattr(pool, "cores_of_machine", lambda: 40)
    monkeypatch.setattr(pipeline, "load_ahead", lambda *args: iter((chosen.append(args[3:5]),)))
    scenes = data.load("scenes", size=4)
    decoding = Decoding()
    config = configs.check_measurement({"models": {}, "data": {"source": "scenes"}})
    for source in (scenes, decoding, data.subrange(decoding, 0, 2)):
        data.groups(source, {"m": Preprocess()}, [np.arange(2)], **pool.of_config(config))
        data.batches(source, Preprocess(), 2, 0)
    assert chosen == [(None, 0)] * 2 + [(None, 40)] * 4
    chosen.clear()
    config.workers, config.threads = 0, 3
    data.groups(decoding, {"m": Preprocess()}, [np.arange(2)], **pool.of_config(config))
    assert chosen == [(3, 0)]


def same(one, other):
    for a, b in zip(one, other, strict=True):
        assert list(a) == list(b)
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])
        images = (
            v["images"]["m"] if isinstance(v["images"], dict) else v["images"] for v in (a, b)
        )
        np.testing.assert_array_equal(*images)


def test_processes_give_the_same_bits_and_pass_on_errors(tmp_path):
    """Processes of their own take a second to start, so one test has all that needs them."""
    source = data.load("scenes", size=40, image_size=16)
    options = dict(batch=8, seed=3, augment=("flip", "pad_crop(2)"), repeats=2)

    def batches(**how):
        stream = data.batches(source, Preprocess(), **options, **how)
        taken = [next(stream) for _ in range(6)]
        stream.close()
        return taken

    same(batches(threads=0), batches(workers=2))

    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(b"no image")
    folder = data.load("folder", path=str(tmp_path))
    with pytest.raises(ValueError, match=r"0\.png") as caught:
        next(data.groups(folder, {"m": Preprocess()}, [np.arange(3)], workers=1))
    with pytest.raises(ValueError, match=r"0\.png") as without:
        next(data.groups(folder, {"m": Preprocess()}, [np.arange(3)], threads=0))
    assert str(caught.value) == str(without.value)


def test_a_script_that_does_not_ask_for_its_name_is_not_run_again(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "print('started')\n"
        "import numpy as np\n"
        "from vitcnn import data\n"
        "source = data.load('scenes', size=4)\n"
        "(group,) = data.groups(source, {'m': data.Preprocess()}, [np.arange(4)], workers=1)\n"
        "print(group['label'].tolist() == [source.label(i) for i in range(4)])\n"
    )
    run = subprocess.run(
        [sys.executable, str(script)],
        env=running.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.stdout.split() == ["started", "True"], run.stderr
