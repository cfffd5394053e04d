"""Answers, mistakes, confusion and calibration are what scikit-learn and the definitions say."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss
from torch import Tensor, nn
from torch.nn import functional as F

from lessons_lib.datasets import Pictures
from lessons_lib.mistakes import Answers, answers
from lessons_lib.training import evaluate


@pytest.fixture
def found() -> Answers:
    random = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(400, 5, generator=random)
    # Right in about the share of cases that the probabilities say: the labels are drawn from them.
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=random)[:, 0]
    return Answers(logits, labels)


def test_accuracy_loss_and_confusion_are_scikit_learns(found: Answers) -> None:
    assert found.accuracy == pytest.approx(accuracy_score(found.labels, found.predicted))
    assert found.loss == pytest.approx(log_loss(found.labels, found.logits.double().softmax(dim=1)), rel=1e-6)
    assert found.confusion().tolist() == confusion_matrix(found.labels, found.predicted).tolist()


def test_confusion_has_a_place_for_every_class_even_where_none_is_seen() -> None:
    few = Answers(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([1]))
    assert few.confusion().tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0]]


def test_mistakes_are_all_that_is_wrong_the_surest_first(found: Answers) -> None:
    wrong = found.mistakes()
    assert set(wrong.tolist()) == set((found.predicted != found.labels).nonzero().flatten().tolist())
    sure = found.confidence[wrong]
    assert (sure[:-1] >= sure[1:]).all()


def test_of_equally_sure_mistakes_the_first_comes_first() -> None:
    logits = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert Answers(logits, torch.tensor([0, 0, 0, 1])).mistakes().tolist() == [0, 2, 3]


def test_calibration_is_what_its_definition_says(found: Answers) -> None:
    its = found.calibration(bins=4)
    assert its.pictures.sum() == len(found)
    for k in range(4):
        inside = (found.confidence > k / 4) & (found.confidence <= (k + 1) / 4)
        assert its.pictures[k] == inside.sum()
        if inside.any():
            assert its.confidence[k] == pytest.approx(found.confidence[inside].double().mean().item())
            assert its.accuracy[k] == pytest.approx(found.right[inside].double().mean().item())
    gaps = (its.confidence - its.accuracy).abs().nan_to_num()
    assert its.error == pytest.approx(((its.pictures.double() / len(found)) @ gaps).item())


def test_an_answer_at_a_border_of_bins_and_a_certain_one_are_counted_once() -> None:
    logits = torch.tensor([[0.0, 0.0], [100.0, 0.0]])  # confidences 0.5 and 1
    assert Answers(logits, torch.tensor([0, 1])).calibration(bins=2).pictures.tolist() == [1, 1]


def test_labels_drawn_from_the_probabilities_are_calibrated_and_sharper_ones_are_not() -> None:
    random = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, 5, generator=random)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=random)[:, 0]
    honest, boastful = Answers(logits, labels), Answers(3 * logits, labels)
    assert honest.calibration().error < 0.01
    assert boastful.calibration().error > 0.1
    assert honest.best_temperature() == pytest.approx(1, abs=0.03)
    assert boastful.best_temperature() == pytest.approx(3, abs=0.1)


def test_the_best_temperature_is_that_of_a_fine_search(found: Answers) -> None:
    tried = torch.linspace(0.5, 2, 301)
    losses = [F.cross_entropy(found.logits / t, found.labels).item() for t in tried]
    assert found.best_temperature() == pytest.approx(tried[losses.index(min(losses))].item(), abs=0.01)


def test_a_temperature_changes_no_answer(found: Answers) -> None:
    cooler = found.at_temperature(0.3)
    assert torch.equal(cooler.predicted, found.predicted)
    assert (cooler.confidence >= found.confidence).all()


# --- from a network -------------------------------------------------------------------------------------------------


def network_and_pictures() -> tuple[nn.Module, Pictures]:
    random = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 4))
    images = torch.randint(0, 256, (23, 3, 4, 4), dtype=torch.uint8, generator=random)
    return network, Pictures(images, torch.randint(0, 4, (23,), generator=random))


@pytest.mark.parametrize("flip", [False, True])
def test_answers_are_those_that_evaluate_counts(flip: bool) -> None:
    network, pictures = network_and_pictures()
    found = answers(network, pictures.batches(5), flip=flip)
    score = evaluate(network, pictures.batches(7), flip=flip)
    assert len(found) == score.pictures == 23
    assert found.accuracy == pytest.approx(score.accuracy)
    assert found.loss == pytest.approx(score.loss, rel=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_the_network_is_read_in_eval_mode_and_left_as_it_was(training: bool) -> None:
    network, pictures = network_and_pictures()
    network.train(training)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = answers(network, pictures.batches(5))
    assert network.training is training
    assert not found.logits.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.allclose(found.logits, answers(network.eval(), pictures.batches(23)).logits, atol=1e-6)


def test_a_network_that_fails_is_left_as_it_was() -> None:
    network, pictures = network_and_pictures()
    network.train()
    with pytest.raises(RuntimeError):
        answers(network, [(torch.rand(2, 3, 5, 5), pictures.labels[:2])])
    assert network.training


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (torch.zeros(3), torch.zeros(3, dtype=torch.long)),
        (torch.zeros(3, 2), torch.zeros(2, dtype=torch.long)),
        (torch.zeros(0, 2), torch.zeros(0, dtype=torch.long)),
    ],
)
def test_what_does_not_fit_is_refused(logits: Tensor, labels: Tensor) -> None:
    with pytest.raises(ValueError, match="logits must be"):
        Answers(logits, labels)


def test_nothing_to_answer_and_no_temperature_are_refused(found: Answers) -> None:
    network, _ = network_and_pictures()
    with pytest.raises(ValueError, match="no picture"):
        answers(network, [])
    with pytest.raises(ValueError, match="temperature must be above 0, not 0"):
        found.at_temperature(0)
    with pytest.raises(ValueError, match="bins must be 1 or more"):
        found.calibration(0)
