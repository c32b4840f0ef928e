"""The torch side of these tests, in the environment of torch, where neither Paddle nor plsc is imported:

    python -m tests.torch.worker nets DIR      weights of CASES as their projects save them, and what torch computes
    python -m tests.torch.worker forms DIR     one small net, saved in several ways
    python -m tests.torch.worker graphs DIR    GRAPHS by torch.onnx.export
    python -m tests.torch.worker load DIR      read each DIR/NAME/back/model.pt, and what torch computes of it

What torch computes is in NAME/torch.npz: float32 and float64 [B, E].
"""

from __future__ import annotations

import sys
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

from tests.torch import cases, nets
from tests.torch.cases import ADAFACE, GRAPH_SIDE, MAGFACE, SIDE, Case, pictures

DRAWN_FROM = 4  # images that the statistics of batch norms are of
CLASSES, RANKS = 10, 2


def images_of(project: str, pixels: np.ndarray) -> torch.Tensor:
    """float64 [B, C, H, W] as the project's own programs make them of RGB pixels."""
    if project == MAGFACE:  # cv2 reads BGR; transforms.Normalize with mean 0 and deviation 1
        pixels = pixels[..., ::-1] / 255
    else:  # AdaFace: BGR
        pixels = ((pixels[..., ::-1] if project == ADAFACE else pixels) / 255 - 0.5) / 0.5
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


def make(case: Case, side: int, seed: int = 1) -> torch.nn.Module:
    """The net with drawn numbers, in evaluation mode."""
    net = empty(case, side)
    return nets.draw(net, images_of(case.project, pictures(DRAWN_FROM, side, seed=3)).float(), seed)


def empty(case: Case, side: int) -> torch.nn.Module:
    net = getattr(nets, case.net)(**{"embedding": 512, **case.sizes, "side": side})
    return net.eval()


def features(net: torch.nn.Module, images: torch.Tensor) -> np.ndarray:
    """The embeddings before AdaFace's division by their length."""
    with torch.no_grad():
        found = net(images)
    return (found[0] * found[1] if isinstance(found, tuple) else found).numpy()


def write_features(path: Path, net: torch.nn.Module, case: Case, side: int) -> None:
    """torch.npz; turns the net into one of float64."""
    images = images_of(case.project, pictures(side=side))
    single = features(net, images.float())
    np.savez(path, float32=single, float64=features(net.double(), images))


def write_nets(where: Path) -> None:
    for name, case in cases.CASES.items():
        (where / name).mkdir()
        net, file = make(case, SIDE), where / name / case.file
        if file.name == "checkpoint_gpu_0.pt":
            write_ranks(file.parent, net)
        elif case.project == ADAFACE:
            named = OrderedDict((f"model.{key}", value) for key, value in net.state_dict().items())
            named["head.kernel"] = torch.randn(512, CLASSES)
            named["head.t"] = torch.zeros(1)
            torch.save({"epoch": 25, "global_step": 70, "pytorch-lightning_version": "1.8", "state_dict": named}, file)
        elif case.project == MAGFACE:
            named = OrderedDict((f"features.module.{key}", value) for key, value in net.state_dict().items())
            named["module.fc.weight"] = torch.randn(512, CLASSES)
            torch.save({"epoch": 25, "arch": "iresnet18", "state_dict": named, "best_prec1": torch.tensor(3.0)}, file)
        else:
            torch.save(net.state_dict(), file)
        write_features(where / name / "torch.npz", net, case, SIDE)


def write_ranks(where: Path, net: torch.nn.Module) -> None:
    """The complete checkpoints of arcface_torch's ranks, of a real optimizer after two steps; what it holds in npz."""
    random = torch.Generator().manual_seed(5)
    net.features.weight.requires_grad = False  # fixed there
    schedule, known = None, {}
    backbone = {name: value.clone() for name, value in net.state_dict().items()}
    for rank in range(RANKS):
        net.load_state_dict(backbone)
        head = torch.nn.Linear(512, CLASSES // RANKS, bias=False)
        groups = [{"params": list(net.parameters())}, {"params": list(head.parameters())}]
        optimizer = torch.optim.SGD(groups, lr=1e-4, momentum=0.9, weight_decay=5e-4)
        schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, 100)
        shared = torch.Generator().manual_seed(6)  # gradients of the backbone are those of all ranks
        for _ in range(2):
            for parameter in net.parameters():
                if parameter.requires_grad:
                    parameter.grad = torch.randn(parameter.shape, generator=shared) * 1e-3
            head.weight.grad = torch.randn(head.weight.shape, generator=random)
            optimizer.step()
            schedule.step()
        torch.save({
            "epoch": 2, "global_step": 70, "state_dict_backbone": net.state_dict(),
            "state_dict_softmax_fc": head.state_dict(), "state_optimizer": optimizer.state_dict(),
            "state_lr_scheduler": schedule.state_dict(),
        }, where / f"checkpoint_gpu_{rank}.pt")  # fmt: skip
        known[f"classes{rank}"] = head.weight.detach().numpy()
        known[f"class_momentum{rank}"] = optimizer.state[head.weight]["momentum_buffer"].numpy()
        for name in ("conv1.weight", "layer3.13.prelu.weight", "fc.weight"):
            known[name] = optimizer.state[net.get_parameter(name)]["momentum_buffer"].numpy()
    np.savez(where / "known.npz", **known)


def write_forms(where: Path) -> None:
    """Files of FORMS and REFUSED_FORMS, and the tensors that each must give in NAME.npz."""
    net = make(cases.GRAPHS["iresnet"], GRAPH_SIDE)
    stored = net.state_dict()
    floats = {name: value for name, value in stored.items() if value.is_floating_point()}
    flat = torch.cat([value.flatten() for value in floats.values()])
    parts = flat.split([value.numel() for value in floats.values()])
    forms = {
        "parameters": {**dict(net.named_parameters()), **dict(net.named_buffers())},
        "half": {name: value.half() if name in floats else value for name, value in stored.items()},
        "bfloat16": {name: value.bfloat16() if name in floats else value for name, value in stored.items()},
        "data parallel": torch.nn.DataParallel(net).state_dict(),
        "views": {name: part.view(value.shape) for (name, value), part in zip(floats.items(), parts)},
    }
    for form, value in forms.items():
        torch.save(value, where / f"{form}.pt")
        given = {"half": forms["half"], "bfloat16": forms["bfloat16"]}.get(form, stored)
        np.savez(where / f"{form}.npz", **{name: given[name].float().numpy() for name in floats})
    torch.save(stored, where / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save(net, where / "module.pt")


def write_graphs(where: Path) -> None:
    for name, case in cases.GRAPHS.items():
        (where / name).mkdir()
        net = make(case, GRAPH_SIDE)
        image = images_of(case.project, pictures(1, GRAPH_SIDE)).float()
        for way, options in {**cases.EXPORTS, **(cases.REFUSED_EXPORTS if name == "mbf" else {})}.items():
            export(net, image, where / name / f"{way}.onnx", options)
        if name in cases.DYNAMIC_GRAPHS:
            any_number = {"dynamic_shapes": ({0: torch.export.Dim("batch")},), **cases.EXPORTS["dynamo"]}
            export(net, image.repeat(2, 1, 1, 1), where / name / f"{cases.DYNAMIC}.onnx", any_number)
        write_features(where / name / "torch.npz", net, case, GRAPH_SIDE)


def export(net: torch.nn.Module, images: torch.Tensor, path: Path, options: dict) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the old exporter is old
        torch.onnx.export(net, (images,), str(path), verbose=False, **options)


def read_back(where: Path) -> None:
    """As a user of these projects reads a file. The names must be all of the net's, in its order."""
    for name in (*cases.RETURNED, *cases.TRAINED):
        case = {**cases.CASES, **cases.TRAINED}[name]
        net = empty(case, SIDE)
        stored = torch.load(where / name / "back" / "model.pt", weights_only=True)
        net.load_state_dict(stored, strict=True)
        if list(stored) != list(net.state_dict()):
            sys.exit(f"{name}: other order of names")
        write_features(where / name / "back.npz", net, case, SIDE)


if __name__ == "__main__":
    torch.set_num_threads(1)  # as many processes run as there are cores; its threads would spin for one another
    what = {"nets": write_nets, "forms": write_forms, "graphs": write_graphs, "load": read_back}
    what[sys.argv[1]](Path(sys.argv[2]))
