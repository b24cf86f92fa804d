"""The MAML examples of higher, TorchOpt and learn2learn give the meta-gradients of `InnerLoop`.

Their networks, inner loops and hyperparameters are those of `examples/maml-omniglot.py` (higher), `examples/few-shot/maml_omniglot.py`
(TorchOpt) and `examples/vision/maml_omniglot.py` (learn2learn), with fewer filters; the images are random. A library that is not installed is
skipped. learn2learn needs a build step; its source tree is enough here: PYTHONPATH=FOLDER_OF_ITS_REPOSITORY.
"""

import importlib.util
import sys
import types
import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from metatrain.gradient import InnerLoop

WAYS, EPISODES = 5, 2
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-6}
DTYPES = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)


def convolutional() -> nn.Module:
    """The network of the examples of higher and TorchOpt."""

    def block(inputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, 16, 3), nn.BatchNorm2d(16, momentum=1.0, affine=True), nn.ReLU(), nn.MaxPool2d(2, 2)]

    return nn.Sequential(*block(1), *block(16), *block(16), nn.Flatten(), nn.Linear(16, WAYS))


def fully_connected() -> nn.Module:
    """OmniglotFC, the network of learn2learn's example."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs, eps=1e-3, momentum=0.999, track_running_stats=False), nn.ReLU()]

    return nn.Sequential(nn.Flatten(), *block(28**2, 64), *block(64, 32), nn.Linear(32, WAYS))


def problem(make, dtype: torch.dtype):
    """A network and episodes: support images and labels, query images and labels."""
    torch.manual_seed(0)
    labels = torch.arange(WAYS).repeat(5)
    episodes = [(torch.rand(25, 1, 28, 28, dtype=dtype), labels, torch.rand(25, 1, 28, 28, dtype=dtype), labels) for _ in range(EPISODES)]
    return make().to(dtype), episodes


def loss(net: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(net(images), labels)


def theirs(net: nn.Module) -> dict[str, torch.Tensor]:
    """Take the gradients of a network away from it."""
    found = {name: value.grad for name, value in net.named_parameters()}
    net.zero_grad()
    return found


def compare(loop: InnerLoop, episodes, expected: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    """The sum over episodes equals the other library's gradient."""
    for x, y, x_query, y_query in episodes:
        loop.backward(partial(loss, images=x, labels=y), partial(loss, images=x_query, labels=y_query))
    assert max(float(value.abs().max()) for value in expected.values()) > 0.1
    for name, value in loop.model.named_parameters():
        torch.testing.assert_close(value.grad, expected[name], rtol=0, atol=TOLERANCE[dtype], msg=name)


@DTYPES
def test_higher(dtype):
    higher = pytest.importorskip("higher")
    net, episodes = problem(convolutional, dtype)
    inner_opt = torch.optim.SGD(net.parameters(), lr=1e-1)
    for x, y, x_query, y_query in episodes:
        with higher.innerloop_ctx(net, inner_opt, copy_initial_weights=False) as (fnet, diffopt):
            for _ in range(5):
                diffopt.step(F.cross_entropy(fnet(x), y))
            F.cross_entropy(fnet(x_query), y_query).backward()
    expected = theirs(net)
    compare(InnerLoop(net, lr=1e-1, steps=5), episodes, expected, dtype)


@DTYPES
def test_torchopt(dtype):
    torchopt = pytest.importorskip("torchopt")
    net, episodes = problem(convolutional, dtype)
    parameters = dict(net.named_parameters())
    inner_opt = torchopt.MetaSGD(net, lr=1e-1)
    net_state = torchopt.extract_state_dict(net, by="reference", detach_buffers=True)
    optimizer_state = torchopt.extract_state_dict(inner_opt, by="reference")
    losses = []
    for x, y, x_query, y_query in episodes:
        for _ in range(5):
            inner_opt.step(F.cross_entropy(net(x), y))
        losses.append(F.cross_entropy(net(x_query), y_query))
        torchopt.recover_state_dict(net, net_state)
        torchopt.recover_state_dict(inner_opt, optimizer_state)
    torch.stack(losses).sum().backward()
    expected = {name: value.grad for name, value in parameters.items()}
    net, episodes = problem(convolutional, dtype)
    compare(InnerLoop(net, lr=1e-1, steps=5), episodes, expected, dtype)


@pytest.fixture
def learn2learn(monkeypatch):
    """Its algorithms, without the rest of the package, which needs a build."""
    spec = importlib.util.find_spec("learn2learn")
    if spec is None:
        pytest.skip("learn2learn is not installed")
    (folder,) = spec.submodule_search_locations
    for name, path in (("learn2learn", folder), ("learn2learn.algorithms", f"{folder}/algorithms")):
        package = types.ModuleType(name)
        package.__path__ = [path]
        monkeypatch.setitem(sys.modules, name, package)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from learn2learn.algorithms.maml import MAML
        from learn2learn.algorithms.meta_sgd import MetaSGD
    return types.SimpleNamespace(MAML=MAML, MetaSGD=MetaSGD)


@DTYPES
@pytest.mark.parametrize("first_order", [False, True])
def test_learn2learn(dtype, first_order, learn2learn):
    net, episodes = problem(fully_connected, dtype)
    maml = learn2learn.MAML(net, lr=0.5, first_order=first_order)
    for x, y, x_query, y_query in episodes:
        learner = maml.clone()
        learner.adapt(loss(learner, x, y))
        loss(learner, x_query, y_query).backward()
    expected = theirs(net)
    compare(InnerLoop(net, lr=0.5, steps=1, mode="first_order" if first_order else "exact"), episodes, expected, dtype)


@DTYPES
def test_the_learned_rates_of_learn2learn(dtype, learn2learn):
    net, episodes = problem(fully_connected, dtype)
    maml = learn2learn.MetaSGD(net, lr=0.1)
    for x, y, x_query, y_query in episodes:
        learner = maml.clone()
        for _ in range(2):
            learner.adapt(loss(learner, x, y))
        loss(learner, x_query, y_query).backward()
    rates = {name: value.grad for (name, _), value in zip(net.named_parameters(), maml.lrs)}
    expected = theirs(net)
    loop = InnerLoop(net, "meta_sgd", lr=0.1, steps=2)
    compare(loop, episodes, expected, dtype)
    for name, value in rates.items():
        found = loop.learned[name.replace(".", "/")].grad
        torch.testing.assert_close(found, value, rtol=0, atol=TOLERANCE[dtype], msg=name)
