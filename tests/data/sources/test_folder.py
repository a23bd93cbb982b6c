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


def numbers_of(source):
    """Returns file -> label."""
    return {file: source.label(i) for i, file in enumerate(source.files)}


def fill(root, *names):
    for i, name in enumerate(names):
        write(root / name, picture(i))


def test_links_to_folders_and_files_are_followed(tmp_path):
    fill(tmp_path / "elsewhere", "1.png", "2.png", "b.png")
    root = tmp_path / "images"
    fill(root, "cat/1.png", "dog/1.png")
    (root / "airplane").symlink_to(tmp_path / "elsewhere")
    (root / "dog/linked.png").symlink_to(tmp_path / "elsewhere/b.png")
    source = data.load("folder", path=str(root))
    assert numbers_of(source) == {
        "airplane/1.png": 0,
        "airplane/2.png": 0,
        "airplane/b.png": 0,
        "cat/1.png": 1,
        "dog/1.png": 2,
        "dog/linked.png": 2,
    }
    assert source.class_names == ["airplane", "cat", "dog"]
    np.testing.assert_array_equal(source[5]["image"], picture(2))


def test_a_loop_of_links_is_left_out(tmp_path):
    fill(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "cat/up").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path)
    with pytest.warns(UserWarning, match="is a link to a folder that holds it") as caught:
        source = data.load("folder", path=str(tmp_path))
    assert len(caught) == 2 and source.class_names == ["cat", "dog"] and len(source) == 2


@pytest.mark.parametrize("name", ["airplane", "cat/2.png", "cat/notes"])
def test_a_link_that_leads_nowhere_is_named(tmp_path, name):
    fill(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / name).symlink_to(tmp_path / "gone")
    with pytest.raises(ValueError, match=f"{name}' is a link to '.*gone', which does not exist"):
        data.load("folder", path=str(tmp_path))
    if name.endswith(".png"):
        with pytest.warns(UserWarning, match=r"left out 1 of 3 images .*: cat/2.png"):
            assert len(data.load("folder", path=str(tmp_path), skip_corrupt=True)) == 2


def test_an_empty_class_folder_counts(tmp_path):
    fill(tmp_path, "cat/1.png", "dog/1.png", ".git/1.png", "__MACOSX/1.png")
    (tmp_path / "bird").mkdir()
    with pytest.warns(UserWarning, match=r"1 class folders .* have no images.*: bird$"):
        source = data.load("folder", path=str(tmp_path))
    assert source.class_names == ["bird", "cat", "dog"] and source.classes == 3
    assert numbers_of(source) == {"cat/1.png": 1, "dog/1.png": 2}
    (tmp_path / "bird/1.heic").write_text("a kind of file that is not read")
    with pytest.warns(UserWarning, match=r"1 folders .* do not count as classes: bird$"):
        assert data.load("folder", path=str(tmp_path)).class_names == ["cat", "dog"]


def test_a_class_of_imagenet_without_images_counts_whatever_else_it_holds(tmp_path):
    fill(tmp_path, "n01440764/1.png", "n02102040/images/1.png")
    (tmp_path / "n01443537").mkdir()
    (tmp_path / "n01443537/boxes.txt").write_text("as in Tiny-ImageNet")
    with pytest.warns(UserWarning, match="count as classes: n01443537"):
        source = data.load("folder", path=str(tmp_path))
    assert numbers_of(source) == {"n01440764/1.png": 0, "n02102040/images/1.png": 2}


def test_folders_that_are_numbers_have_these_numbers(tmp_path):
    fill(tmp_path / "all", *(f"{i}/x.png" for i in range(12)))
    source = data.load("folder", path=str(tmp_path / "all"))
    assert numbers_of(source) == {f"{i}/x.png": i for i in range(12)}
    assert (source.classes, source.class_names) == (12, None)
    fill(tmp_path / "some", *(f"{i}/x.png" for i in range(5, 10)))
    with pytest.warns(UserWarning, match="numbers from 5 to 9"):
        source = data.load("folder", path=str(tmp_path / "some"))
    assert numbers_of(source) == {f"{i}/x.png": i for i in range(5, 10)} and source.classes == 10


def test_one_folder_is_a_class_only_if_its_name_says_so(tmp_path):
    fill(tmp_path / "a", "images/cat/1.png", "images/dog/1.png")
    (tmp_path / "a/annotations").mkdir()
    (tmp_path / "a/annotations/1.xml").write_text("")
    with pytest.warns(UserWarning, match=r"all images .* are in its sub-folder 'images'"):
        assert not data.load("folder", path=str(tmp_path / "a")).labelled
    fill(tmp_path / "b", "n02102040/1.png")
    source = data.load("folder", path=str(tmp_path / "b"))
    assert source.class_names == ["n02102040"] and source.label(0) == 0
    fill(tmp_path / "c", "7/1.png")
    with pytest.warns(UserWarning, match="7 smaller numbers"):
        source = data.load("folder", path=str(tmp_path / "c"))
    assert source.label(0) == 7 and source.classes == 8


def test_splits_and_folders_of_classes_are_no_classes(tmp_path):
    fill(tmp_path / "a", "train/cat/1.png", "train/dog/1.png", "val/cat/1.png")
    with pytest.raises(ValueError, match="holds the splits train, val, which are not classes"):
        data.load("folder", path=str(tmp_path / "a"))
    fill(tmp_path / "b", "animals/cat/1.png", "animals/dog/1.png", "cars/1.png")
    with pytest.warns(UserWarning, match=r"all images in 'animals' count .* in cat, dog"):
        assert data.load("folder", path=str(tmp_path / "b")).class_names == ["animals", "cars"]


def csv_source(tmp_path, content, *names):
    fill(tmp_path, *(names or ("a.png", "b.png")))
    (tmp_path / "labels.csv").write_bytes(content)
    return data.load("folder", path=str(tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        b"file,label\na.png,3\n\nb.png,1\n",  # a blank line
        b"file,label\r\na.png,3\r\nb.png,1\r\n,\r\n",  # an empty row, as spreadsheets leave it
        b"file;label\na.png;3\nb.png;1\n",
        b"file\tlabel\na.png\t3\nb.png\t1\n",
        b'label , "file"\n3,"a.png"\n" 1",./b.png\n'.replace(b', "', b',"'),
        b"file,label\na.png,3.0\nb.png,1.\n",
        b"\xef\xbb\xbffile,label\na.png,3\nb.png,1\n",
        "file,label\na.png,3\nb.png,1\n".encode("utf-16"),
        b"\xfe\xff" + "file,label\na.png,3\nb.png,1\n".encode("utf-16-be"),
        "file,label\na.png,3\nb.png,1\n".encode("utf-32"),
    ],
    ids=range(10),
)
def test_tables_of_every_dialect_are_read(tmp_path, content):
    assert numbers_of(csv_source(tmp_path, content)) == {"a.png": 3, "b.png": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"file,label\na.png,0\nb.png\n", r"line 3 has 1 fields, expected 2 .file, label."),
        (b"file,label\na.png,0\nb.png,1,2\n", "line 3 has 3 fields, expected 2"),
        (b"file,label\n\na.png,0.5\nb.png,1\n", "line 3: label '0.5' .* not a whole number"),
        (b"file,label\na.png,\nb.png,1\n", "line 2: label '' .* not a whole number"),
        (b"file,label\na.png,1_0\nb.png,1\n", "label '1_0' .* not a whole number"),
        (b"file,label\na.png,nan\nb.png,1\n", "label 'nan'"),
        (b"file,label,label\na.png,0,1\nb.png,1,1\n", "columns file, label, label: expected"),
        (b"", "has the columns none: expected file and label"),
        (b"file,label\n", "has no rows below its header"),
        (b'file,label\n"a.png,0\nb.png,1\n', "cannot be read as CSV"),
        ("file,label\ncaf\u00e9.png,0\n".encode("cp1252"), "not UTF-8 .byte 0xe9 .*cp1252.*UTF-8"),
        ("file,label\na.png,0\n".encode("utf-16-le"), "zero bytes, as UTF-16 does"),
    ],
)
def test_tables_that_cannot_be_understood_are_named(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        csv_source(tmp_path, content)


@pytest.mark.parametrize(("on_disk", "in_table"), [("e\u0301", "\u00e9"), ("\u00e9", "e\u0301")])
def test_accents_are_the_same_in_both_unicode_forms(tmp_path, on_disk, in_table):
    content = f"file,label\n{in_table}.png,4\nb.png,1\n".encode()
    source = csv_source(tmp_path, content, f"{on_disk}.png", "b.png")
    assert sorted(numbers_of(source).values()) == [1, 4]
    assert {source.label(i) for i, f in enumerate(source.files) if on_disk in f} == {4}


def test_a_column_names_the_classes(tmp_path):
    source = csv_source(tmp_path, b"file,label,name\na.png,2,dog\nb.png,0,cat\n")
    assert source.class_names == ["cat", "", "dog"] and source.classes == 3
    (tmp_path / "labels.csv").write_text("file,label,name\na.png,2,Rex\nb.png,2,Fido\n")
    with pytest.warns(UserWarning, match=r"line 3: label 2 is called 'Fido' here and 'Rex' before"):
        assert data.load("folder", path=str(tmp_path)).class_names is None


@pytest.mark.parametrize("path", ["hdfs://bucket/a", "gs:///", "gs:/bucket", "file:///tmp", ""])
@pytest.mark.parametrize("source", ["folder", "npz"])
def test_addresses_are_refused(source, path):
    with pytest.raises(ValueError, match=r"data.path .*(this machine|pathlib|bucket/folder)"):
        data.load(source, path=path)
