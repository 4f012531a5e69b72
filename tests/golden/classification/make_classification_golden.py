"""Reference values of the classifiers' loss and accuracy, by PyTorch.

Writes
  cross_entropy.safetensors   <case>/{logits, labels, loss, gradient}: F.cross_entropy in f64
  top_k.safetensors           <classes>/{logits, labels, top_1_5_mean_class}: torchvision's reference
                              `accuracy`, and torchmetrics' macro accuracy over the classes that occur

Run: python make_classification_golden.py
"""

import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torchmetrics.functional.classification import multiclass_accuracy

HERE = pathlib.Path(__file__).parent


def cross_entropy(logits, labels):
    logits = logits.double().requires_grad_()
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    return {
        "logits": logits.detach().float(),
        "labels": labels.float(),
        "loss": loss.detach().float().reshape(1),
        "gradient": logits.grad.float(),
    }


def accuracy(output, target, topk):
    """references/classification/utils.py of torchvision, in shares."""
    maxk = min(max(topk), output.shape[1])
    _, pred = output.topk(maxk, 1, True, True)
    correct = pred.t().eq(target[None])
    return [correct[: min(k, maxk)].flatten().sum() / target.size(0) for k in topk]


def main():
    torch.manual_seed(0)
    cases = {
        "spec": (torch.tensor([[2.0, 0.0, -2.0]]), torch.tensor([0])),
        "random": (torch.randn(9, 6), torch.randint(0, 6, (9,))),
        "extreme": (torch.randn(4, 3) * 60, torch.randint(0, 3, (4,))),
    }
    entries = {}
    for case, (logits, labels) in cases.items():
        for name, value in cross_entropy(logits, labels).items():
            entries[f"{case}/{name}"] = value.contiguous()
    assert abs(entries["spec/loss"].item() - 0.142932) < 1e-6
    save_file(entries, HERE / "cross_entropy.safetensors")

    entries = {}
    for classes in (7, 4):
        logits, labels = torch.randn(40, classes), torch.randint(0, classes, (40,))
        top1, top5 = accuracy(logits, labels, (1, 5))
        macro = multiclass_accuracy(logits, labels, num_classes=classes, average="macro")
        entries[f"{classes}/logits"] = logits
        entries[f"{classes}/labels"] = labels.float()
        entries[f"{classes}/top_1_5_mean_class"] = torch.stack([top1, top5, macro]).float()
    save_file(entries, HERE / "top_k.safetensors")


if __name__ == "__main__":
    main()
