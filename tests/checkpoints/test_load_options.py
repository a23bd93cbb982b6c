"""What `vitcnn.load` does with weights that are not quite of the network: grids, heads, pixels."""

import importlib
import json

import numpy as np
import PIL.Image
import pytest
import torch_vits

import vitcnn
from vitcnn import checkpoints
from vitcnn.checkpoints import sidecars

HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
POSITIONS = "params/Transformer/posembed_input/pos_embedding"


@pytest.fixture(scope="module")
def made():
    return torch_vits.state((8, 8))


@pytest.fixture(scope="module")
def path(made, tmp_path_factory):
    return torch_vits.save(tmp_path_factory.mktemp("weights") / "a.safetensors", made)


def load(path, **fields):
    return vitcnn.load(
        "vit",
        "mini/4",
        path,
        **{**torch_vits.SIZES, "num_classes": 5, "preprocess": HALF, **fields},
    )


@pytest.mark.parametrize("method", ["bicubic", "linear"])
def test_positions_are_resized_to_the_grid_of_the_network(path, made, method):
    model = load(path, image_size=(24, 40), position_resize=method)
    table = checkpoints.flat(model.variables)[POSITIONS]
    np.testing.assert_array_equal(table[:, :1], made["pos_embed"][:, :1])
    assert table.shape == (1, 61, 12)
    assert model.provenance["weights"]["resized"] == {
        POSITIONS: [[1, 65, 12], [1, 61, 12]],
        "method": method,
    }
    images = np.random.default_rng(0).normal(size=(2, 24, 40, 3)).astype(np.float32)
    expected, _ = torch_vits.forward({**made, "pos_embed": table}, images)
    np.testing.assert_allclose(model.run(images)[0], expected, atol=1e-4)
    torch = pytest.importorskip("torch")
    ndimage = pytest.importorskip("scipy.ndimage")
    grid = made["pos_embed"][:, 1:].reshape(1, 8, 8, 12)
    if method == "bicubic":
        grid = torch.nn.functional.interpolate(
            torch.from_numpy(grid).permute(0, 3, 1, 2), size=(6, 10), mode=method, antialias=True
        )
        grid = grid.permute(0, 2, 3, 1).numpy()
    else:
        grid = ndimage.zoom(grid[0], (6 / 8, 10 / 8, 1), order=1)
    np.testing.assert_allclose(table[:, 1:], grid.reshape(1, 60, 12), atol=1e-5)


def test_a_grid_that_may_be_two_is_asked_for(path, made, tmp_path):
    with pytest.raises(
        ValueError, match=r"64 positions may be a grid of 8 x 8 or of 4 x 16; set position_grid"
    ):
        load(path, image_size=(16, 64))
    square = load(path, image_size=(16, 64), position_grid=(8, 8))
    oblong = load(path, image_size=(16, 64), position_grid=(4, 16))
    table = checkpoints.flat(oblong.variables)[POSITIONS]
    np.testing.assert_array_equal(table, made["pos_embed"])
    assert np.abs(checkpoints.flat(square.variables)[POSITIONS] - table).max() > 0.1
    with pytest.raises(ValueError, match="has 65 tokens, not 1 and a grid of 4 x 4"):
        load(path, position_grid=(4, 4))
    with pytest.raises(ValueError, match="unknown position_resize 'cubic'"):
        load(path, image_size=64, position_resize="cubic")


def test_a_grid_that_is_no_square_fits_itself_alone(tmp_path):
    path = torch_vits.save(tmp_path / "a.safetensors", torch_vits.state((6, 10)))
    model = load(path, image_size=(24, 40))
    assert "resized" not in model.provenance["weights"]
    with pytest.raises(ValueError, match=r"pos_embedding: 1 x 61 x 12 in the checkpoint"):
        load(path)
    message = r"trained with images of 24 x 40 pixels.* runs at 32 x 32.* set image_size=\(24, 40\)"
    with pytest.warns(UserWarning, match=message):
        assert load(path, position_grid=(6, 10)).image_size == (32, 32)


def test_another_head_is_made_only_when_asked_for(path, made):
    message = r"(?s)head/bias: 5 in the checkpoint, 3 in the network.*new_head=True"
    with pytest.raises(ValueError, match=message):
        load(path, num_classes=3)
    model = load(path, num_classes=3, new_head=True)
    head = model.variables["params"]["head"]
    assert head["kernel"].shape == (12, 3) and not head["kernel"].any() and not head["bias"].any()
    assert model.provenance["weights"]["new"] == ["params/head/bias", "params/head/kernel"]
    with pytest.raises(ValueError, match=r"(?s)unexpected in the checkpoint.*new_head=True"):
        load(path, num_classes=0)
    model = load(path, num_classes=0, new_head=True)
    assert "head" not in model.variables["params"]
    assert model.provenance["weights"]["new"] == []


def test_the_number_of_classes_is_that_of_the_weights_unless_given(path, made):
    model = vitcnn.load("vit", "mini/4", path, **torch_vits.SIZES, preprocess=HALF)  # has 10
    assert model.classes == model.module.num_classes == 5
    assert model.provenance["fields"]["num_classes"] == 5
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(model.run(images)[0], torch_vits.forward(made, images)[0], atol=1e-4)


def test_a_given_field_stays(path):
    with pytest.warns(UserWarning, match="gelu = 'tanh', where the format .* says 'exact'"):
        model = load(path, gelu="tanh")
    assert model.module.gelu == "tanh"
    assert "says 'exact'" in model.provenance["weights"]["contradicted"][0]
    assert load(path).module.gelu == "exact"


def test_unknown_normalisation_is_asked_for(path):
    with pytest.raises(ValueError, match=r"a.safetensors does not say how images are normalised"):
        load(path, preprocess=None)
    with pytest.raises(ValueError, match="normalised"):
        load(path, preprocess={"mean": (0, 0, 0)})
    assert load(path, preprocess=vitcnn.Preprocess()).preprocess.mean == (0.5, 0.5, 0.5)


TIMM = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 32, 32]}
PROCESSOR = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}


@pytest.mark.parametrize(
    ("name", "content", "resize", "interpolation"),
    [
        ("config", {"pretrained_cfg": {**TIMM, "crop_pct": 0.9}}, 35, "bicubic"),
        (
            "config",
            {"pretrained_cfg": {**TIMM, "crop_pct": 1.0, "interpolation": "bilinear"}},
            32,
            "bilinear",
        ),
        (
            "config",
            {"pretrained_cfg": {**TIMM, "crop_mode": "squash", "crop_pct": 1}},
            None,
            "bicubic",
        ),
        (
            "config",
            {"pretrained_cfg": {**TIMM, "crop_mode": "squash", "crop_pct": 0.95}},
            (33, 33),
            "bicubic",
        ),
        (
            "preprocessor_config",
            {**PROCESSOR, "size": {"height": 32, "width": 32}, "resample": 2},
            None,
            "bilinear",
        ),
        (
            "preprocessor_config",
            {**PROCESSOR, "size": 36, "crop_size": 32, "do_center_crop": True, "resample": 3},
            36,
            "bicubic",
        ),
        (
            "preprocessor_config",
            {
                **{**PROCESSOR, "size": {"shortest_edge": 40}, "do_center_crop": True},
                "crop_size": {"height": 32, "width": 32},
            },
            40,
            "bilinear",
        ),
        (
            "preprocessor_config",
            {**PROCESSOR, "size": {"shortest_edge": 32}, "crop_pct": 0.875, "resample": 1},
            36,
            "lanczos",
        ),
        (  # of these a number is both sides, and a crop of all of them crops nothing
            "preprocessor_config",
            {
                **{**PROCESSOR, "size": 32, "crop_size": 32, "do_center_crop": True},
                "feature_extractor_type": "ViTFeatureExtractor",
            },
            None,
            "bilinear",
        ),
        (  # and of these it is the short side, and the crop is usual
            "preprocessor_config",
            {
                **{**PROCESSOR, "size": 32, "crop_size": 32},
                "image_processor_type": "BitImageProcessor",
            },
            32,
            "bicubic",
        ),
        (  # DeiT's: transformers squashes to 36 x 36, its authors keep the aspect ratio
            "preprocessor_config",
            {
                **{**PROCESSOR, "size": {"height": 36, "width": 36}, "do_center_crop": True},
                "crop_size": {"height": 32, "width": 32},
            },
            36,
            "bilinear",
        ),
    ],
)
def test_preprocessing_beside_the_weights(tmp_path, made, name, content, resize, interpolation):
    torch_vits.save(tmp_path / "model.safetensors", made)
    (tmp_path / f"{name}.json").write_text(json.dumps(content))
    model = load(tmp_path, preprocess=None)  # the folder of a repository
    assert model.preprocess == vitcnn.Preprocess(
        (32, 32), resize, interpolation, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    )
    assert model.provenance["weights"]["preprocess"] == f"{name}.json"
    again = load(tmp_path, preprocess={"mean": (0, 0, 0)})
    assert again.preprocess.mean == (0, 0, 0) and again.preprocess.std == (0.4, 0.5, 0.6)


def test_hugging_faces_epsilon_and_damaged_files(tmp_path, made):
    torch_vits.save(tmp_path / "model.safetensors", torch_vits.hugging_face(made, "vit."))
    (tmp_path / "config.json").write_text('{"layer_norm_eps": 1e-12, "model_type": "vit"}')
    model = load(tmp_path)
    assert model.module.epsilon == model.provenance["fields"]["epsilon"] == 1e-12
    assert model.module.gelu == "exact"
    (tmp_path / "config.json").write_text('{"layer_norm_eps": 1e-6, "hidden_act": "gelu_new"}')
    assert load(tmp_path).module.gelu == "tanh"
    for text, message in (
        (
            '{"layer_norm_eps": 1, "hidden_act": "quick_gelu"}',
            "hidden_act is 'quick_gelu'; expected one",
        ),
        ("{", "config.json beside the weights is not JSON"),
        (json.dumps({"pretrained_cfg": {**TIMM, "crop_mode": "border"}}), "'border'"),
        (json.dumps({"pretrained_cfg": {**TIMM, "crop_mode": "left"}}), "crop_mode is 'left'"),
    ):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            load(tmp_path)


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("vit", {}),
        ("vit", {"size": 40}),
        ("vit", {"size": 40, "do_center_crop": True, "crop_size": 40, "resample": 1}),
        ("vit", {"size": {"height": 24, "width": 40}, "do_normalize": False}),
        ("convnext", {"size": 28}),
        ("convnext", {"size": {"shortest_edge": 36}, "crop_pct": 0.5}),
        ("convnext", {"size": 400}),
        ("bit", {"size": 48, "crop_size": 36}),
    ],
)
def test_pixels_are_those_of_transformers(tmp_path, kind, fields):
    pytest.importorskip("transformers", "5")
    names = {"vit": "ViT", "convnext": "ConvNext", "bit": "Bit"}
    module = importlib.import_module(f"transformers.models.{kind}.image_processing_pil_{kind}")
    processor = getattr(module, f"{names[kind]}ImageProcessorPil")(**fields)
    processor.save_pretrained(tmp_path)
    settings = sidecars.read_published(tmp_path / "model.safetensors")
    assert settings.file == "preprocessor_config.json"
    for shape in ((80, 80, 3), (90, 60, 3), (60, 90, 3)):  # all that is cut off is even
        image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        theirs = processor(PIL.Image.fromarray(image), return_tensors="np")["pixel_values"]
        ours = vitcnn.Preprocess(**settings.preprocess)([image])
        np.testing.assert_allclose(ours, theirs.transpose(0, 2, 3, 1), atol=1e-6)


def test_weights_of_a_trained_oblong_network_fit_themselves(tmp_path):
    """Sixteen positions: run.json says that they are 2 x 8, not 4 x 4."""
    fields = {**torch_vits.SIZES, "image_size": [8, 32], "num_classes": 5}
    path = torch_vits.save(tmp_path / "a.safetensors", torch_vits.state((2, 8)))
    model = load(path, image_size=(8, 32), position_grid=(2, 8))
    checkpoints.export(tmp_path / checkpoints.WEIGHTS, model.variables)
    run = {"family": "vit", "variant": "mini/4", "fields": fields}
    run["preprocess"] = {**HALF, "size": [8, 32]}
    (tmp_path / "run.json").write_text(json.dumps({"model": run}))
    again = vitcnn.load("vit", "mini/4", tmp_path)
    assert again.digest() == model.digest()
    assert "resized" in vitcnn.load("vit", "mini/4", tmp_path, image_size=32).provenance["weights"]
