import csv
import json

import numpy as np
import pytest
from PIL import Image

from vitcnn import data


def picture(seed=0, size=(5, 7)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def write(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def write_csv(path, rows, columns=("file", "label")):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def test_csv_labels_in_order_of_names(tmp_path):
    for i, name in enumerate(("b.png", "a.png", "sub/c.png")):
        write(tmp_path / name, picture(i))
    write_csv(
        tmp_path / "labels.csv",
        [("sub/c.png", "wnid", 4), ("./a.png", "x", 0), ("b.png", "y", 2)],
        columns=("file", "wnid", "label"),
    )
    source = data.load("folder", path=str(tmp_path))
    assert list(source.files) == ["a.png", "b.png", "sub/c.png"]
    assert [source[i]["label"] for i in range(3)] == [0, 2, 4]
    assert (len(source), source.labelled, source.classes) == (3, True, 5)
    for i, seed in enumerate((1, 0, 2)):
        np.testing.assert_array_equal(source[i]["image"], picture(seed))
    known = json.loads(json.dumps(source.provenance))
    assert known["labels"] == "labels.csv" and known["images"] == 3 and known["corrupt"] == 0


def test_class_folders(tmp_path):
    for i, name in enumerate(("dog/1.png", "cat/2.PNG", "dog/deep/0.png")):
        write(tmp_path / name, picture(i))
    source = data.load("folder", path=str(tmp_path))
    assert list(source.files) == ["cat/2.PNG", "dog/1.png", "dog/deep/0.png"]
    assert [source[i]["label"] for i in range(3)] == [0, 1, 1]
    assert source.classes == 2 and source.class_names == ["cat", "dog"]
    assert source.provenance["labels"] == "folders"


def test_unlabelled(tmp_path):
    for name in ("b.png", "a.png", ".hidden.png", ".cache/x.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if name.endswith("txt"):
            (tmp_path / name).write_text("no image")
        else:
            write(tmp_path / name, picture())
    source = data.load("folder", path=str(tmp_path))
    assert list(source.files) == ["a.png", "b.png"]
    assert (source.labelled, source.classes, source[0]["label"]) == (False, None, -1)
    write_csv(tmp_path / "labels.csv", [("a.png", 0), ("b.png", 1)])
    assert data.load("folder", path=str(tmp_path)).labelled
    assert not data.load("folder", path=str(tmp_path), labels="").labelled


def test_provenance_follows_names_and_labels(tmp_path):
    for name in ("a.png", "b.png"):
        write(tmp_path / name, picture())
    write_csv(tmp_path / "labels.csv", [("a.png", 0), ("b.png", 1)])
    write_csv(tmp_path / "other.csv", [("a.png", 1), ("b.png", 0)])
    shas = [
        data.load("folder", path=str(tmp_path), labels=labels).provenance["listing_sha256"]
        for labels in ("labels.csv", "other.csv", "")
    ]
    assert len(set(shas)) == 3


def test_modes_become_rgb(tmp_path):
    rgb = picture()
    grey = rgb[..., 0]
    image = Image.fromarray(rgb)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    alpha = np.full((5, 7, 1), 100, np.uint8)
    Image.fromarray(np.concatenate([rgb, alpha], 2)).save(tmp_path / "rgba.png")
    Image.fromarray(np.stack([grey, alpha[..., 0]], -1)).save(tmp_path / "grey_alpha.png")
    image.convert("CMYK").save(tmp_path / "cmyk.tif")
    palette = image.convert("P", palette=Image.Palette.ADAPTIVE, colors=64)
    palette.save(tmp_path / "palette.png")
    palette.save(tmp_path / "transparent.png", transparency=bytes(range(64)))
    Image.fromarray(grey.astype(np.uint16) * 256 + 9).save(tmp_path / "deep.png")
    source = data.load("folder", path=str(tmp_path))
    read = {file: source[i]["image"] for i, file in enumerate(source.files)}
    three = np.stack([grey] * 3, -1)
    for name in ("grey.png", "grey_alpha.png", "deep.png"):
        np.testing.assert_array_equal(read[name], three)
    np.testing.assert_array_equal(read["rgba.png"], rgb)
    np.testing.assert_array_equal(read["cmyk.tif"], rgb)  # black is 0 in Pillow's conversion
    for name in ("palette.png", "transparent.png"):
        np.testing.assert_array_equal(read[name], read["palette.png"])
        assert np.abs(read[name].astype(int) - rgb).mean() < 20
    assert all(image.dtype == np.uint8 and image.shape == (5, 7, 3) for image in read.values())


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter turn clockwise
    write(tmp_path / "a.png", picture(), exif=exif)
    source = data.load("folder", path=str(tmp_path))
    np.testing.assert_array_equal(source[0]["image"], np.rot90(picture(), -1))


def damage(tmp_path):
    for name in ("a.png", "b.jpg", "c.png", "d.png"):
        write(tmp_path / "x" / name, picture(3, (40, 40)))
    content = (tmp_path / "x/b.jpg").read_bytes()
    (tmp_path / "x/b.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "x/c.png").write_text("not an image")
    write_csv(tmp_path / "x/labels.csv", [("a.png", 0), ("b.jpg", 1), ("c.png", 7), ("d.png", 2)])
    return str(tmp_path / "x")


def test_corrupt_image_is_named_when_it_is_read(tmp_path):
    source = data.load("folder", path=damage(tmp_path))
    assert len(source) == 4
    assert source[0]["image"].shape == source[3]["image"].shape == (40, 40, 3)
    for i, name in ((1, "b.jpg"), (2, "c.png")):
        with pytest.raises(ValueError, match=f"{name}' cannot be read.*skip_corrupt=True"):
            source[i]


def test_skip_corrupt_leaves_out_and_counts(tmp_path, capsys):
    with pytest.warns(UserWarning, match=r"left out 2 of 4 images .*: b.jpg, c.png"):
        source = data.load("folder", path=damage(tmp_path), skip_corrupt=True)
    assert "checking images: 100%" in capsys.readouterr().err
    assert list(source.files) == ["a.png", "d.png"]
    assert [source[i]["label"] for i in range(2)] == [0, 2]
    assert source.classes == 8  # labels keep their meaning
    assert source.provenance["corrupt"] == 2
    assert source.provenance["corrupt_files"] == ["b.jpg", "c.png"]


def test_nothing_but_corrupt_images(tmp_path):
    (tmp_path / "a.png").write_text("")
    with pytest.raises(ValueError, match=r"none of the 1 images .* can be read; a.png"):
        data.load("folder", path=str(tmp_path), skip_corrupt=True)


def test_no_folder_and_no_images(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(ValueError, match=r"no images in folder .*pictures.*\.jpeg, \.jpg"):
        data.load("folder", path=str(tmp_path / "pictures"))
    with pytest.raises(FileNotFoundError, match="did you mean 'pictures'"):
        data.load("folder", path=str(tmp_path / "picture"))


def test_images_in_and_outside_of_class_folders(tmp_path):
    for name in ("cat/1.png", "dog/2.png", "stray.png"):
        write(tmp_path / name, picture())
    with pytest.raises(ValueError, match=r"1 outside of them .stray.png."):
        data.load("folder", path=str(tmp_path))


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([("a.png", 0)], ("file", "class"), "columns file, class: expected file and label"),
        ([("a.png", 0), ("b.png", 1), ("bb.png", 1)], None, "not in the folder: bb.png; did you"),
        ([("a.png", 0)], None, "no label for 1 images in the folder: b.png"),
        ([("a.png", 0), ("a.png", 1)], None, "line 3: 'a.png' is listed twice"),
        ([("a.png", "cat"), ("b.png", 1)], None, "line 2: label 'cat' .* not a whole number"),
        ([("a.png", -1), ("b.png", 1)], None, "below 0"),
    ],
)
def test_wrong_csv(tmp_path, rows, columns, message):
    for name in ("a.png", "b.png"):
        write(tmp_path / name, picture())
    write_csv(tmp_path / "labels.csv", rows, columns or ("file", "label"))
    with pytest.raises(ValueError, match=message):
        data.load("folder", path=str(tmp_path))


def test_named_csv_must_exist(tmp_path):
    write(tmp_path / "a.png", picture())
    write_csv(tmp_path / "truth.csv", [("a.png", 0)])
    with pytest.raises(FileNotFoundError, match=r"did you mean 'truth.csv'"):
        data.load("folder", path=str(tmp_path), labels="truht.csv")
    assert data.load("folder", path=str(tmp_path), labels="truth.csv").labelled


def test_real_photographs(shared_data):
    source = data.load("folder", path=str(shared_data / "imagenet_samples"))
    assert (len(source), source.classes) == (1000, 1000)
    assert source.files[0] == "n01440764.jpg" and source[0]["label"] == 0
    preprocess = data.Preprocess(size=224, resize=256)
    group = next(data.groups(source, {"m": preprocess}, [np.arange(16)]))
    assert group["images"]["m"].shape == (16, 224, 224, 3)
    np.testing.assert_array_equal(group["label"], np.arange(16))
