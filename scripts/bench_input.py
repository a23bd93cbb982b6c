"""Images per second of the input pipeline, against its threads and processes.

    python scripts/bench_input.py
    python scripts/bench_input.py --folder=DIR --tfds=imagenette/320px-v2 --pool=1,2,4,8,16

Beside it: bare Pillow in a loop on one core, of which the pool should reach 0.9 for each core; and
the loader of PyTorch with the same images and the same transforms, where torch is installed. All
load the same images in the same order, one after the other in each round, so that what else the
machine does slows all alike. Printed are medians over the rounds, with ratios within a round. The
last column is the processor time of all threads, as a multiple of that of the loop: what the pool
itself costs, which can be measured on a busy machine too.

Without --folder, JPEG files of 500 x 375 pixels are made; images are resized to 256 and cropped to
224. The npz archive holds images of 32 pixels, and scenes are drawn at 32 pixels.
"""

import collections
import pathlib
import statistics
import tempfile
import time
import warnings

import numpy as np
from absl import app, flags
from PIL import Image

from vitcnn import data
from vitcnn.data import Preprocess, pool
from vitcnn.data.preprocess import geometry_of
from vitcnn.data.subset import opened

FOLDER = flags.DEFINE_string("folder", "", "Folder of images; made if it is left out.")
TFDS = flags.DEFINE_string("tfds", "", "A set that TFDS has prepared; left out without a name.")
SPLIT = flags.DEFINE_string("split", "train", "Its split.")
IMAGES = flags.DEFINE_integer("images", 384, "Number of images of a measurement.")
GROUP = flags.DEFINE_integer("group", 64, "Number of images of a group.")
ROUNDS = flags.DEFINE_integer("rounds", 3, "Number of rounds.")
POOL = flags.DEFINE_list(
    "pool", [], "Numbers of threads and processes; 1 to the cores if left out."
)

PHOTOGRAPH = Preprocess(size=224, resize=256, interpolation="bicubic")
SMALL = Preprocess(size=32)
FILES = []  # the folder of the images that are made


def make_photographs(folder, count):
    """Writes JPEG files of noise with a falling spectrum, which compress as photographs do."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(375)[:, None], np.fft.fftfreq(500)) + 1e-3
    for i in range(count):
        spectrum = np.fft.fft2(rng.standard_normal((3, 375, 500))) / frequency
        waves = np.fft.ifft2(spectrum).real
        pixels = 128 + 50 * waves / waves.std()
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
        image.save(folder / f"{i:05d}.jpg", quality=90)


def sources(folder):
    """Returns name -> (source, preprocess)."""
    photographs = folder / "photographs"
    FILES.append(photographs)
    if not FOLDER.value:
        photographs.mkdir()
        make_photographs(photographs, min(IMAGES.value, 128))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2048, 32, 32, 3), np.uint8)
    np.savez(folder / "images.npz", image=images, label=np.arange(2048) % 10)
    found = {"folder": (data.load("folder", path=FOLDER.value or str(photographs)), PHOTOGRAPH)}
    if TFDS.value:
        found["tfds"] = (data.load("tfds", name=TFDS.value, split=SPLIT.value), PHOTOGRAPH)
    found["npz"] = (data.load("npz", path=str(folder / "images.npz")), SMALL)
    found["scenes"] = (data.load("scenes", size=2048), SMALL)
    return found


def bare(source, preprocess, indices):
    """Loads images in a loop; of files, with nothing but Pillow."""
    root = FOLDER.value or FILES[0]
    for i in indices.tolist():
        if not hasattr(source, "files"):
            preprocess.geometry(source[i]["image"])
            continue
        with Image.open(pathlib.Path(root, source.files[i])) as file:
            image = file.convert("RGB")
        short = min(image.size)
        size = tuple(preprocess.resize * side // short for side in image.size)
        image = image.resize(size, Image.Resampling.BICUBIC)
        left, top = ((a - b) // 2 for a, b in zip(image.size, preprocess.size[::-1], strict=True))
        box = (left, top, left + preprocess.size[1], top + preprocess.size[0])
        np.asarray(image.crop(box))


def ours(source, preprocess, indices, **how):
    """Loads them through the pool; the time of starting processes does not count."""
    groups = np.split(indices, range(GROUP.value, len(indices), GROUP.value))
    stream = data.groups(source, {"model": preprocess}, [indices[:1], *groups], **how)
    next(stream)
    return lambda: collections.deque(stream, maxlen=0)


class Dataset:
    """The same images and transforms for the loader of PyTorch."""

    def __init__(self, source, preprocess, indices):
        self.source, self.preprocess, self.indices = source, preprocess, indices

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, i):
        example = opened(self.source, int(self.indices[i]))
        return geometry_of(example["image"], self.preprocess).copy(), example["label"]


def torchs(source, preprocess, indices, workers):
    from torch.utils.data import DataLoader

    dataset = Dataset(source, preprocess, np.concatenate([indices[:1], indices]))
    start, *rest = range(len(dataset))
    batches = [[start], *(rest[i : i + GROUP.value] for i in range(0, len(rest), GROUP.value))]
    stream = iter(DataLoader(dataset, batch_sampler=batches, num_workers=workers))
    next(stream)
    return lambda: collections.deque(stream, maxlen=0)


def seconds(begin):
    """Returns the time that a way of loading takes, and the processor time of this process."""
    load = begin()
    start, before = time.perf_counter(), time.process_time()
    load()
    return time.perf_counter() - start, time.process_time() - before


def main(_):
    cores = pool.threads_of_machine()
    counts = [int(n) for n in POOL.value] or list(range(1, cores + 1))
    has_torch = True
    try:
        import torch
    except ImportError:
        has_torch = False
    else:
        torch.set_num_threads(1)
        warnings.filterwarnings("ignore", module="torch")
    print(f"{cores} cores; images per second, ratio to the loop (its range), processor time")
    with tempfile.TemporaryDirectory() as folder:
        for name, (source, preprocess) in sources(pathlib.Path(folder)).items():
            n = IMAGES.value if name in ("folder", "tfds") else 16 * IMAGES.value
            indices = np.resize(np.random.default_rng(0).permutation(len(source)), n)
            ways = {"loop": lambda s=source, p=preprocess, i=indices: lambda: bare(s, p, i)}
            for count in counts:
                for kind in ("threads", "workers"):
                    ways[f"{count} {kind}"] = (
                        lambda s=source, p=preprocess, i=indices, how={kind: count}: ours(
                            s, p, i, **how
                        )
                    )
                if has_torch:
                    ways[f"{count} of torch"] = lambda s=source, p=preprocess, i=indices, w=count: (
                        torchs(s, p, i, w)
                    )
            taken = {way: [] for way in ways}
            for _ in range(ROUNDS.value):
                for way, begin in ways.items():
                    taken[way].append(seconds(begin))
            print(f"\n{name}: {len(source)} images, {n} loaded")
            for way, pairs in taken.items():
                rounds = list(zip(taken["loop"], pairs, strict=True))
                ratios = [loop / took for (loop, _), (took, _) in rounds]
                work = statistics.median(spent / loop for (_, loop), (_, spent) in rounds)
                print(
                    f"  {way:12} {n / statistics.median(took for took, _ in pairs):9.0f}"
                    f"  {statistics.median(ratios):5.2f}  ({min(ratios):.2f} to {max(ratios):.2f})"
                    f"  {f'{work:.2f}' if way == 'loop' or 'threads' in way else '':>5}"
                )


if __name__ == "__main__":
    app.run(main)
