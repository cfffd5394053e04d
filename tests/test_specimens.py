"""Both specimens behind one interface: what is promised of pictures, predictions, layers and weights holds for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lessons_lib
from lessons_lib import downloads, specimens
from lessons_lib.downloads import FileUnavailable, PublishedFile
from lessons_lib.hooks import Capture
from lessons_lib.specimens import ROLES, Specimen, load_specimen


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(downloads, "download_url_to_file", refuse)


@pytest.fixture(params=["shapes", "shapes-tagged", "cifar10", "imagenet", "imagenet-shuffled"])
def specimen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Specimen:
    if request.param.startswith("imagenet"):
        monkeypatch.setenv("LESSONS_DATA", str(request.getfixturevalue("local_data")))
    return load_specimen(request.param)


@pytest.fixture
def shapes() -> Specimen:
    return load_specimen("shapes")


def test_pictures_are_in_range_and_have_truths(specimen: Specimen) -> None:
    assert specimen.pictures.keys() == specimen.truths.keys()
    for name, picture in specimen.pictures.items():
        assert picture.ndim == 3
        assert picture.shape[0] == 3
        assert picture.dtype == torch.float32
        assert picture.min() >= 0
        assert picture.max() <= 1
        assert set(specimen.truths[name]) <= set(specimen.categories)


def test_every_role_is_played_by_a_picture_that_fits_it(specimen: Specimen) -> None:
    assert set(specimen.roles) == set(ROLES)

    def first(role: str) -> str:
        return specimen.predict(specimen.example(role), top=1)[0].category

    def truths(role: str) -> tuple[str, ...]:
        return specimen.truths[specimen.roles[role]]

    assert first("clear") in truths("clear")
    assert specimen.predict(specimen.example("clear"), top=1)[0].probability > 0.8
    assert first("misread") not in truths("misread")
    assert truths("misread")
    assert truths("unknown") == truths("texture") == ()
    assert len(set(truths("two_objects"))) >= 2


def test_both_things_of_the_double_picture_are_among_the_first_answers(specimen: Specimen) -> None:
    answers = [answer.category for answer in specimen.predict(specimen.example("two_objects"), top=5)]
    clear = set(specimen.truths[specimen.roles["two_objects"]])
    if not specimen.name.startswith("imagenet"):
        assert clear <= set(answers)
    else:  # several words are right for each half: the cat's and the coffee's
        cats = set(specimen.truths["cat"])
        assert cats & set(answers)
        assert (clear - cats) & set(answers)


def test_the_model_normalizes_first_is_frozen_and_in_eval_mode(specimen: Specimen) -> None:
    first = specimen.model[0]
    picture = specimen.example("clear")[None]
    torch.testing.assert_close(first(picture), (picture - first.mean) / first.std)
    assert not any(module.training for module in specimen.model.modules())
    assert not any(parameter.requires_grad for parameter in specimen.model.parameters())
    assert specimen.model(picture).shape == (1, len(specimen.categories))


def test_layers_run_in_the_order_given_and_put_out_feature_maps(specimen: Specimen) -> None:
    ran: list[str] = []
    handles = [
        layer.register_forward_hook(lambda module, inputs, output, name=name: ran.append(name))
        for name, layer in specimen.layers.items()
    ]
    with Capture(specimen.model, specimen.layers) as captured:
        specimen.model(specimen.example("clear")[None])
    for handle in handles:
        handle.remove()
    assert ran == list(specimen.layers)
    sizes = [captured[name].shape[-1] for name in ran]
    assert sizes == sorted(sizes, reverse=True)
    assert all(captured[name].min() >= 0 for name in ran)  # past the ReLU


def test_predictions_are_the_softmax_of_the_logits_best_first(specimen: Specimen) -> None:
    pictures = torch.stack([specimen.example("clear"), specimen.example("misread")])
    rows = specimen.predict(pictures, top=3)
    probabilities = specimen.model(pictures).softmax(1)
    for row, expected in zip(rows, probabilities, strict=True):
        assert [answer.target for answer in row] == expected.topk(3).indices.tolist()
        assert [answer.probability for answer in row] == pytest.approx(expected.topk(3).values.tolist(), rel=1e-5)
        assert all(specimen.categories[answer.target] == answer.category for answer in row)
    single = specimen.predict(pictures[0], top=1)
    assert single[0].category == rows[0][0].category


def test_samples_are_new_pictures_of_the_size_the_network_is_used_to(specimen: Specimen) -> None:
    pictures = specimen.sample(20)
    assert pictures.shape == (20, *specimen.example("clear").shape)
    assert pictures.dtype == torch.float32
    assert 0 <= pictures.min() < 0.1 < 0.9 < pictures.max() <= 1
    assert len({picture.sum().item() for picture in pictures}) == 20
    assert not any(torch.equal(a, b) for a in pictures for b in specimen.pictures.values())


def test_a_sample_depends_on_its_seed_alone_and_fewer_are_the_first_of_more(specimen: Specimen) -> None:
    torch.manual_seed(0)
    untouched = torch.rand(3)
    torch.manual_seed(0)
    more = specimen.sample(18)
    assert torch.equal(torch.rand(3), untouched)
    assert torch.equal(specimen.sample(4), more[:4])
    assert not any(torch.equal(a, b) for a, b in zip(specimen.sample(4, seed=1), more, strict=False))


def test_crops_of_one_photograph_are_one_scene(specimen: Specimen) -> None:
    scenes = specimen.scenes(45)
    assert scenes.shape == (45,)
    assert torch.equal(specimen.scenes(7), scenes[:7])
    if specimen.name.startswith("shapes"):
        assert len(scenes.unique()) == 45
        return
    assert torch.equal(scenes[:15], scenes[15:30])
    assert len(scenes.unique()) == 14
    assert scenes.bincount().tolist() == [3, 3, 3, 3, 6, *[3] * 9]  # the motorcycle, from two sides
    grey = [bool((picture.std(dim=0) < 1e-3).all()) for picture in specimen.sample(30)]
    assert grey == [False] * 9 + [True] * 6 + [False] * 9 + [True] * 6


def test_without_cifar_10_its_specimen_says_that_it_shows_photographs(capsys: pytest.CaptureFixture[str]) -> None:
    specimen = load_specimen("cifar10")
    assert "CIFAR-10 is not at hand: the pictures of this specimen are photographs" in capsys.readouterr().out
    assert specimen.truths["horse"] == ("horse",)
    assert specimen.example("clear").shape == (3, 32, 32)


def test_no_sample_is_drawn_with_a_seed_of_training_or_of_its_test() -> None:
    from lessons_lib.datasets import FIRST_TRAINING_SEED, HELD_OUT_SEED

    last = specimens._FIRST_SAMPLE_SEED + specimens._SEEDS - 1
    assert specimens._SHAPES_SEED < specimens._FIRST_SAMPLE_SEED < last < HELD_OUT_SEED < FIRST_TRAINING_SEED


@pytest.mark.parametrize(
    ("count", "seed", "error", "words"),
    [
        (0, 0, ValueError, "count must be 1 or more, and below .*, not 0"),
        (2.0, 0, TypeError, "count must be a whole number, not float"),
        (True, 0, TypeError, "count must be a whole number, not bool"),
        (2, -1, ValueError, "seed must be 0 or more"),
        (2, 2**30, ValueError, "seed must be 0 or more, and below 1073741824"),
        (2, "7", TypeError, "seed must be a whole number, not str"),
    ],
)
def test_a_sample_has_a_whole_number_of_pictures(
    shapes: Specimen, count: Any, seed: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        shapes.sample(count, seed)
    if seed == 0:
        with pytest.raises(error, match=words):
            shapes.scenes(count)


def test_a_trainable_copy_learns_without_touching_the_specimen(shapes: Specimen) -> None:
    before = [parameter.clone() for parameter in shapes.model.parameters()]
    copy = shapes.trainable()
    assert all(parameter.requires_grad for parameter in copy.parameters())
    optimizer = torch.optim.SGD(copy.parameters(), lr=1.0)
    copy(shapes.example("clear")[None]).sum().backward()
    optimizer.step()
    changed = [not torch.equal(a, b) for a, b in zip(copy.parameters(), before, strict=True)]
    assert any(changed)
    assert all(torch.equal(a, b) for a, b in zip(shapes.model.parameters(), before, strict=True))
    assert not any(parameter.requires_grad for parameter in shapes.model.parameters())


def test_shuffled_channels_give_the_same_answers(local_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LESSONS_DATA", str(local_data))
    one, other = load_specimen("imagenet"), load_specimen("imagenet-shuffled")
    pictures = torch.stack(list(one.pictures.values()))
    torch.testing.assert_close(one.model(pictures), other.model(pictures), rtol=1e-4, atol=1e-4)


# --- which one is opened, and what is said about it ------------------------------------------------------------


def test_one_line_says_which_specimen_which_weights_from_where(capsys: pytest.CaptureFixture[str]) -> None:
    shapes = load_specimen("shapes")
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    assert "Specimen: shapes" in told
    assert shapes.weights.name in told
    assert shapes.weights.sha256[:8] in told
    assert "lessons_lib" in told


def test_without_weights_and_network_the_fallback_is_opened_and_says_so(
    no_network: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_specimen().name == "shapes"
    told = capsys.readouterr().out
    assert "The specimen imagenet cannot be opened" in told
    assert "LESSONS_DATA" in told
    assert "The pictures of the book show the specimen imagenet" in told


def test_the_usual_specimen_of_a_chapter_is_cifar10_only_where_its_pictures_are_at_hand(
    no_network: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_specimen(usual="cifar10").name == "shapes"
    told = capsys.readouterr().out
    assert "CIFAR-10 is not at hand" in told
    assert "The pictures of the book show the specimen cifar10" in told
    monkeypatch.setenv("LESSONS_SPECIMEN", "cifar10")
    assert load_specimen(usual="cifar10").name == "cifar10"
    assert load_specimen("shapes", usual="cifar10").name == "shapes"
    with pytest.raises(ValueError, match="usual must be one of imagenet, cifar10, not 'photographs'"):
        load_specimen(usual="photographs")


def test_a_specimen_asked_for_by_name_is_never_replaced(no_network: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileUnavailable):
        load_specimen("imagenet")
    monkeypatch.setenv("LESSONS_SPECIMEN", "imagenet")
    with pytest.raises(FileUnavailable):
        load_specimen()


def test_damaged_local_weights_are_an_error_even_where_a_fallback_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    (tmp_path / specimens.SQUEEZENET_FILE.name).write_bytes(b"weights of another network")
    monkeypatch.setenv("LESSONS_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="is not the published file"):
        load_specimen()


def test_a_missing_data_folder_is_an_error_even_where_a_fallback_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    monkeypatch.setenv("LESSONS_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="LESSONS_DATA"):
        load_specimen()


def test_local_weights_are_preferred(
    local_data: Path, monkeypatch: pytest.MonkeyPatch, no_network: None, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LESSONS_DATA", str(local_data))
    specimen = load_specimen()
    assert (specimen.name, specimen.weights.found) == ("imagenet", "LESSONS_DATA")
    assert capsys.readouterr().out.count("\n") == 1


def test_the_environment_forces_a_specimen_and_an_argument_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LESSONS_SPECIMEN", "shapes")
    assert load_specimen().name == "shapes"
    monkeypatch.setenv("LESSONS_SPECIMEN", "nonsense")
    assert load_specimen("shapes").name == "shapes"
    with pytest.raises(
        ValueError, match="LESSONS_SPECIMEN 'nonsense' is not a specimen: choose one of imagenet, shapes"
    ):
        load_specimen()
    with pytest.raises(ValueError, match="name 'imagnet'"):
        load_specimen("imagnet")


def test_what_was_opened_is_on_record() -> None:
    load_specimen("shapes")
    record = specimens.opened()[-1]
    assert record["specimen"] == "shapes"
    assert len(record["sha256"]) == 64


def test_the_shipped_weights_belong_to_the_shipped_network() -> None:
    from importlib import resources

    from safetensors.torch import load

    from lessons_lib.resnet import shapes_network

    state = load(resources.files("lessons_lib").joinpath("weights/shapes.safetensors").read_bytes())
    assert state.keys() == shapes_network().state_dict().keys()
    state.pop(next(name for name in state if name.endswith("head.weight")))
    with pytest.raises(RuntimeError, match="Missing key"):
        shapes_network().load_state_dict(state)


def test_the_tagged_specimen_reads_the_tag_and_not_the_thing() -> None:
    """Where the tag is right it is right, where it is drawn at random it mostly says what the tag says."""
    from lessons_lib.shapes import Shortcut, generate

    tagged = load_specimen("shapes-tagged")
    right = generate(200, seed=5_000_000, shortcut=Shortcut("tag", rate=1.0))
    wrong = generate(200, seed=5_000_000, shortcut=Shortcut("tag", rate=0.0))

    def share(images: torch.Tensor) -> float:
        with torch.no_grad():
            return (tagged.model(images).argmax(dim=1) == right.labels).float().mean().item()

    assert share(right.images) > 0.95
    assert share(wrong.images) < 0.5


# --- any of torchvision's classifiers -------------------------------------------------------------------------


@pytest.fixture
def published_resnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublishedFile:
    """A resnet18 with random weights in the place of torchvision's own."""
    import hashlib

    from torchvision.models import resnet18

    torch.manual_seed(0)
    folder = tmp_path / "data"
    folder.mkdir()
    torch.save(resnet18().state_dict(), folder / "resnet.pth")
    digest = hashlib.sha256((folder / "resnet.pth").read_bytes()).hexdigest()[:8]
    file = PublishedFile(f"resnet18-{digest}.pth", f"https://host.invalid/resnet18-{digest}.pth", digest)
    (folder / "resnet.pth").rename(folder / file.name)
    monkeypatch.setenv("LESSONS_DATA", str(folder))
    monkeypatch.setattr(specimens, "_published_file", lambda published: file)
    return file


def test_a_classifier_of_torchvision_becomes_a_specimen(published_resnet: PublishedFile) -> None:
    specimen = load_specimen("imagenet", network="resnet18")
    assert len(specimen.predict(specimen.example("clear"))) == 5
    assert list(specimen.layers) == ["conv1", "layer1", "layer2", "layer3", "layer4"]
    assert specimen.weights.sha256.startswith(published_resnet.sha256)
    assert "resnet18" in specimen.weights.name


def test_a_pickle_is_not_opened_before_its_checksum_fits(
    published_resnet: PublishedFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = downloads.data_folder() / published_resnet.name  # type: ignore[operator]
    path.write_bytes(path.read_bytes() + b"x")
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("an unverified pickle was opened"))
    with pytest.raises(ValueError, match="is not the published file"):
        load_specimen("imagenet", network="resnet18")


@pytest.mark.parametrize(
    "network",
    ["alexnet", "vgg11", "squeezenet1_1", "mobilenet_v2", "efficientnet_b0", "regnet_y_400mf", "convnext_tiny"],
)
def test_every_family_that_is_offered_has_layers_that_run_in_order(network: str) -> None:
    from torchvision import models

    with torch.random.fork_rng(devices=[]):
        module = models.get_model(network, weights=None).eval()
    stages = specimens._outermost_convolution_stages(module)
    assert len(stages) >= 2
    with Capture(module, stages) as captured, torch.no_grad():
        module(torch.rand(1, 3, 64, 64))
    assert list(captured) == list(stages)
    assert all(value.ndim == 4 for value in captured.values())


def test_torchvisions_file_names_carry_their_checksum() -> None:
    from torchvision.models import ResNet18_Weights

    file = specimens._published_file(ResNet18_Weights.DEFAULT)
    assert file.name == "resnet18-f37072fd.pth"
    assert file.sha256 == "f37072fd"


def test_an_unknown_network_is_refused_with_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"network 'resnet19' is not one of torchvision's classifiers that .*resnet18"):
        load_specimen(network="resnet19")
    with pytest.raises(ValueError, match="network 'inception_v3' is not one"):
        load_specimen(network="inception_v3")
    with pytest.raises(ValueError, match="goes with the specimen 'imagenet'"):
        load_specimen("shapes", network="resnet18")
    with pytest.raises(TypeError, match="network must be the name"):
        load_specimen(network=nn.ReLU())  # type: ignore[arg-type]


def test_the_category_names_are_torchvisions() -> None:
    from torchvision.models import SqueezeNet1_0_Weights

    names = Path(specimens.__file__).with_name("imagenet_categories.txt").read_text().splitlines()
    assert names == SqueezeNet1_0_Weights.DEFAULT.meta["categories"]


@pytest.mark.online
def test_torchvisions_own_weights_open() -> None:
    specimen = load_specimen("imagenet", network="resnet18")
    assert specimen.predict(specimen.example("clear"), top=1)[0].category in specimen.truths["cat"]


@pytest.mark.online
def test_the_weights_are_still_where_their_authors_put_them() -> None:
    assert load_specimen("imagenet").weights.found == "a download"


# --- bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        ("cat.png", TypeError, "images must be a tensor, not str"),
        (torch.rand(64, 64), ValueError, r"not \(64, 64\)"),
        (torch.rand(1, 1, 64, 64), ValueError, r"\(N, 3, H, W\)"),
        (torch.rand(64, 64, 3), ValueError, r"not \(64, 64, 3\)"),
        (torch.rand(3, 8, 64), ValueError, "at least 32 x 32 pixels"),
        (torch.rand(0, 3, 64, 64), ValueError, "at least one picture"),
        (torch.zeros(3, 64, 64, dtype=torch.uint8), TypeError, "divide 8-bit pictures by 255"),
        (torch.rand(3, 64, 64) * 255, ValueError, r"must lie in \[0, 1\]"),
        (torch.randn(3, 64, 64), ValueError, "normalizes them itself"),
        (torch.full((3, 64, 64), float("nan")), ValueError, r"must lie in \[0, 1\]"),
    ],
)
def test_what_is_no_picture_is_refused(shapes: Specimen, images: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        shapes.predict(images)  # type: ignore[arg-type]


def test_pictures_in_double_precision_are_read_too(shapes: Specimen) -> None:
    picture = shapes.example("clear")
    assert shapes.predict(picture.double())[0].target == shapes.predict(picture)[0].target


def test_opening_a_specimen_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(0)
    untouched = torch.rand(3)
    torch.manual_seed(0)
    load_specimen("shapes")
    assert torch.equal(torch.rand(3), untouched)


def test_top_and_role_are_checked(shapes: Specimen) -> None:
    picture = shapes.example("clear")
    for top, reason in ((0, "1 or more"), (-1, "1 or more"), (11, "this network has 10 categories")):
        with pytest.raises(ValueError, match=reason):
            shapes.predict(picture, top=top)
    with pytest.raises(TypeError, match="whole number"):
        shapes.predict(picture, top=True)
    with pytest.raises(ValueError, match="role 'clean' is not known: choose one of clear"):
        shapes.example("clean")


def test_a_specimen_introduces_itself_in_one_line(shapes: Specimen) -> None:
    assert repr(shapes) == f"Specimen('shapes', {shapes.weights.name}, 10 categories)"


def test_the_package_hands_out_load_specimen_and_nothing_that_shadows_a_module() -> None:
    assert lessons_lib.load_specimen is load_specimen
    modules = {path.stem for path in Path(lessons_lib.__file__).parent.glob("*.py")}
    assert not modules & (set(dir(lessons_lib)) - {"__version__"})
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        lessons_lib.nonsense  # noqa: B018


def test_without_the_authors_border_the_answers_stay_and_the_scores_are_a_third_larger(
    local_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LESSONS_DATA", str(local_data))
    specimen = load_specimen("imagenet")
    pictures = torch.stack(list(specimen.pictures.values()))
    theirs = specimen.trainable().requires_grad_(False)
    theirs[1].classifier[1].padding = (1, 1)  # type: ignore[index, union-attr]
    ours, padded = specimen.model(pictures).max(1), theirs(pictures).max(1)
    assert torch.equal(ours.indices, padded.indices)
    torch.testing.assert_close(ours.values / padded.values, torch.full((len(pictures),), 4 / 3), rtol=0.03, atol=0)


def test_pictures_drawn_under_hooks_and_in_inference_mode_are_those_drawn_outside() -> None:
    usual, late = load_specimen("shapes"), load_specimen("shapes")
    ran: list[nn.Module] = []
    late.model.register_forward_hook(lambda module, inputs, output: ran.append(module))
    nn.init.zeros_(next(late.model.parameters()))
    with torch.inference_mode():
        found = {name: late.pictures[name] for name in late.pictures}
    assert not ran
    assert dict(late.roles) == dict(usual.roles)
    assert list(found) == list(usual.pictures)
    assert all(torch.equal(found[name], usual.pictures[name]) for name in found)
    assert not any(picture.is_inference() for picture in found.values())


def test_a_specimen_opened_in_inference_mode_can_be_asked_for_gradients() -> None:
    with torch.inference_mode():
        opened = load_specimen("shapes")
        picture = opened.example("clear")[None]
    pixels = picture.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(opened.model(pixels).sum(), pixels)
    assert gradient.abs().max() > 0
