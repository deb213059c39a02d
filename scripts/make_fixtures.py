#!/usr/bin/env python3
"""Writes the PyTorch results that tests/parity compares with: tests/fixtures/{ops.safetensors,networks.json}.

    python3 -m pip install torch==2.11.0 numpy safetensors
    python3 scripts/make_fixtures.py [--out tests/fixtures]

Everything is computed by PyTorch in f64 on one thread, so the tests' tolerances cover this crate's f32 alone. Inputs and
parameters are not stored: both sides make them with uniform(name), a hash of the tensor's name and the element's index
in PyTorch's order (tests/parity/formula.rs). Modules carry torchvision's names; torchvision itself is not needed.
"""
import argparse, json, os
import numpy as np
import torch, torch.nn as nn, torch.nn.functional as F
from safetensors.torch import save_file

U32 = np.uint32


# --- the formula shared with tests/parity/formula.rs -------------------------------------------------------------

def hashes(name, numel):
    """Bits for elements 0..numel: murmur3's finaliser over index * odd + fnv1a(name)."""
    seed = 0x811C9DC5
    for byte in name.encode():
        seed = (seed ^ byte) * 0x01000193 & 0xFFFFFFFF
    with np.errstate(over="ignore"):
        h = np.arange(numel, dtype=U32) * U32(0x9E3779B1) + U32(seed)
        h = (h ^ h >> U32(16)) * U32(0x85EBCA6B)
        h = (h ^ h >> U32(13)) * U32(0xC2B2AE35)
    return h ^ h >> U32(16)


def uniform(name, shape):
    """f32 in [-1, 1), exact multiples of 2^-23."""
    h = hashes(name, int(np.prod(shape)))
    return ((h >> U32(8)).astype(np.float32) * np.float32(2.0 ** -23) - np.float32(1)).reshape(shape)


def labels(name, n, classes):
    return torch.from_numpy(((hashes(name, n) >> U32(8)) % U32(classes)).astype(np.int64))


def values(name, shape, beta=False):
    """A parameter or statistic in f32.

    A batch norm's beta is 2 to 3 away from 0: its ReLU then cuts mostly whole channels and few values lie so close to 0
    that rounding decides on which side. With a beta near 0 PyTorch's own f32 and f64 gradients of the deep networks
    differ by 1 to 8 percent, and a comparison would show nothing.
    """
    u = uniform(name, shape)
    if beta:
        return u + np.copysign(np.float32(2), u)
    if len(shape) == 4:  # convolution: variance 2 / fan_in
        return u * np.float32((6.0 / np.prod(shape[1:])) ** 0.5)
    if len(shape) == 2:  # linear: variance 1 / fan_in
        return u * np.float32((3.0 / shape[1]) ** 0.5)
    if name.endswith("running_var"):
        return np.float32(3) + u
    if name.endswith("weight"):  # gamma
        return np.float32(1) + u * np.float32(0.25)
    return u * np.float32(0.25)


def tensor(name, shape, grad=True):
    return torch.from_numpy(uniform(name, shape)).double().requires_grad_(grad)


def philox_words(seed, index, numel):
    """Words 0..numel of Philox::new(seed, Stream::Dropout, index): src/rng.rs."""
    mask, purpose = (1 << 64) - 1, 7
    z = seed ^ (purpose << 32 | purpose)
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
    z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
    z ^= z >> 31
    k0, k1 = z & 0xFFFFFFFF, z >> 32
    blocks = -(-numel // 4)
    c = [np.arange(blocks, dtype=np.uint64), np.zeros(blocks, np.uint64)]
    c += [np.full(blocks, index & 0xFFFFFFFF, np.uint64), np.full(blocks, index >> 32, np.uint64)]
    low = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [p1 >> np.uint64(32) ^ c[1] ^ np.uint64(k0), p1 & low, p0 >> np.uint64(32) ^ c[3] ^ np.uint64(k1), p0 & low]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, 1).reshape(-1)[:numel]


# --- models with torchvision's module names --------------------------------------------------------------------------

class Dropout(nn.Module):
    """Dropout with the crate's masks for (seed, index, layer)."""
    seed, index = 5, 3

    def __init__(self, ordinal, count):
        super().__init__()
        self.ordinal, self.count = ordinal, count

    def forward(self, x):
        if not self.training:
            return x
        words = philox_words(self.seed, self.index * self.count + self.ordinal, x.numel())
        keep = torch.from_numpy(((words >> np.uint64(8)).astype(np.float64) * 2.0 ** -24 >= 0.5)).to(x.dtype)
        return x * keep.reshape(x.shape) * 2.0


class PadShortcut(nn.Module):
    def __init__(self, c, k):
        super().__init__()
        self.front, self.back = (k - c) // 2, (k - c) - (k - c) // 2

    def forward(self, x):
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.front, self.back))


class Block(nn.Module):
    """BasicBlock, or Bottleneck when `expansion` is 4; `pad`: a parameter-free shortcut."""

    def __init__(self, c, planes, stride, expansion, pad):
        super().__init__()
        k = planes * expansion
        sizes = [(1, 1, planes), (3, stride, planes), (1, 1, k)] if expansion == 4 else [(3, stride, k), (3, 1, k)]
        self.count, x = len(sizes), c
        for i, (size, step, out) in enumerate(sizes, 1):
            setattr(self, f"conv{i}", nn.Conv2d(x, out, size, step, size // 2, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(out))
            x = out
        if stride == 1 and c == k:
            self.downsample = nn.Identity()
        elif pad:
            self.downsample = PadShortcut(c, k)
        else:
            self.downsample = nn.Sequential(nn.Conv2d(c, k, 1, stride, bias=False), nn.BatchNorm2d(k))

    def forward(self, x):
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = F.relu(y) if i < self.count else F.relu(y + self.downsample(x))
        return y


class ResNet(nn.Module):
    def __init__(self, channels, depths, expansion, stem, classes, pad):
        super().__init__()
        size, stride = (7, 2) if stem == "imagenet" else (3, 1)
        self.conv1 = nn.Conv2d(3, channels[0], size, stride, size // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.maxpool = nn.MaxPool2d(3, 2, 1) if stem == "imagenet" else nn.Identity()
        c, self.stages = channels[0], len(depths)
        for stage, (planes, depth) in enumerate(zip(channels, depths), 1):
            blocks = []
            for i in range(depth):
                blocks.append(Block(c, planes, 2 if i == 0 and stage > 1 else 1, expansion, pad))
                c = planes * expansion
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.fc = nn.Linear(c, classes)

    def forward(self, x):
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for stage in range(1, self.stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        return self.fc(x.mean((2, 3)))


class Vgg(nn.Module):
    def __init__(self, channels, depths, bn, stem, classes, hidden):
        super().__init__()
        layers, c = [], 3
        for k, depth in zip(channels, depths):
            for _ in range(depth):
                layers += [nn.Conv2d(c, k, 3, 1, 1)] + ([nn.BatchNorm2d(k)] if bn else []) + [nn.ReLU()]
                c = k
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7 if stem == "imagenet" else 1)
        if stem == "imagenet":
            self.classifier = nn.Sequential(
                nn.Linear(c * 49, hidden), nn.ReLU(), Dropout(0, 2), nn.Linear(hidden, hidden), nn.ReLU(), Dropout(1, 2),
                nn.Linear(hidden, classes))
        else:
            self.classifier = nn.Linear(c, classes)

    def forward(self, x):
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


RESNETS = {"resnet18": ([2, 2, 2, 2], 1), "resnet34": ([3, 4, 6, 3], 1), "resnet50": ([3, 4, 6, 3], 4),
           "resnet101": ([3, 4, 23, 3], 4), "resnet152": ([3, 8, 36, 3], 4)}
CIFAR_RESNETS = {"resnet20": 3, "resnet32": 5, "resnet56": 9, "resnet110": 18}
VGGS = {"vgg11": [1, 1, 2, 2, 2], "vgg13": [2, 2, 2, 2, 2], "vgg16": [2, 2, 3, 3, 3], "vgg19": [2, 2, 4, 4, 4]}


def build(name, stem, classes, width):
    scaled = lambda channels: [max(1, int(c * width + 0.5)) for c in channels]
    if name in RESNETS:
        return ResNet(scaled([64, 128, 256, 512]), *RESNETS[name], stem, classes, pad=False)
    if name in CIFAR_RESNETS:
        return ResNet(scaled([16, 32, 64]), [CIFAR_RESNETS[name]] * 3, 1, stem, classes, pad=True)
    base, _, bn = name.partition("_")
    return Vgg(scaled([64, 128, 256, 512, 512]), VGGS[base], bn == "bn", stem, classes, scaled([4096])[0])


# --- fixtures ------------------------------------------------------------------------------------------------------

def batch(step, n, image, classes):
    h, w = image
    x = torch.from_numpy(uniform(f"image{step}", (n, 3, h, w)) * np.float32(2)).double()
    return x, labels(f"label{step}", n, classes)


def load_formula(model):
    with torch.no_grad():
        norms = {name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
        for name, t in model.state_dict().items():
            if t.is_floating_point():
                module, _, last = name.rpartition(".")
                t.copy_(torch.from_numpy(values(name, tuple(t.shape), last == "bias" and module in norms)))


def network(name, stem, width, n, image=(32, 32), classes=10, losses=0):
    model = build(name, stem, classes, width).double()
    load_formula(model)
    x, y = batch(0, n, image, classes)
    model.eval()
    with torch.no_grad():
        eval_logits = model(x)
    model.train()
    train_logits = model(x)
    loss = F.cross_entropy(train_logits, y)
    loss.backward()
    probe = lambda name, t: float((t.detach() * torch.from_numpy(uniform(name + ".probe", tuple(t.shape)))).sum())
    record = dict(
        model=name, stem=stem, width=width, n=n, image=[*image, 3], classes=classes,
        eval_logits=eval_logits.flatten().tolist(), eval_loss=float(F.cross_entropy(eval_logits, y)),
        train_loss=float(loss.detach()),
        params=[[k, list(p.shape), float(p.grad.norm()), probe(k, p.grad)] for k, p in model.named_parameters()],
        stats=[[k, float(b.norm()), probe(k, b)] for k, b in model.named_buffers() if b.is_floating_point()],
    )
    if losses:
        load_formula(model)
        sgd = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9, weight_decay=5e-4)
        record["lr"], record["losses"] = LR, []
        for step in range(losses):
            x, y = batch(step, n, image, classes)
            sgd.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            sgd.step()
            record["losses"].append(float(loss.detach()))
    return record


LR = 0.01
NETWORKS = [
    dict(name="resnet18", stem="cifar", width=0.25, n=8, losses=10),
    dict(name="resnet18", stem="imagenet", width=0.25, n=4, image=(64, 48)),
    dict(name="resnet34", stem="cifar", width=0.125, n=4),
    dict(name="resnet50", stem="cifar", width=0.125, n=6, losses=10),
    dict(name="resnet50", stem="imagenet", width=0.125, n=4, image=(64, 64), classes=7),
    dict(name="resnet101", stem="cifar", width=0.0625, n=4),
    dict(name="resnet152", stem="imagenet", width=0.0625, n=4, image=(96, 64)),
    dict(name="resnet20", stem="cifar", width=1.0, n=8, losses=10),
    dict(name="resnet32", stem="cifar", width=0.5, n=4, image=(17, 22)),
    dict(name="resnet56", stem="cifar", width=0.3, n=4),
    dict(name="resnet110", stem="cifar", width=0.25, n=4),
    dict(name="vgg11", stem="cifar", width=0.25, n=8, losses=10),
    dict(name="vgg11", stem="imagenet", width=0.125, n=4),
    dict(name="vgg11_bn", stem="cifar", width=0.25, n=8, losses=10),
    dict(name="vgg13", stem="cifar", width=0.125, n=4, image=(40, 33)),
    dict(name="vgg13_bn", stem="cifar", width=0.125, n=8),
    dict(name="vgg16", stem="cifar", width=0.125, n=4),
    dict(name="vgg16_bn", stem="imagenet", width=0.125, n=5, image=(64, 96), classes=20),
    dict(name="vgg19", stem="imagenet", width=0.0625, n=4, image=(32, 64), classes=100),
    dict(name="vgg19_bn", stem="cifar", width=0.125, n=8),
]


def ops():
    """Outputs and input gradients of single operations; the gradient that enters each is tensor '<op>.dy'."""
    out = {}

    def record(op, y, **grads):
        dy = tensor(f"{op}.dy", tuple(y.shape), grad=False)
        (y * dy).sum().backward()
        out[f"{op}.y"] = y.detach().float().contiguous()
        for name, t in grads.items():
            out[f"{op}.{name}"] = t.grad.float().contiguous()

    # n, c, h, w, k, r, stride, pad, dilation: the same list as tests/parity/ops.rs
    convs = [(2, 3, 9, 7, 8, 3, 1, 1, 1), (2, 3, 16, 13, 5, 7, 2, 3, 1), (3, 16, 6, 6, 24, 1, 1, 0, 1),
             (2, 8, 7, 5, 16, 1, 2, 0, 1), (1, 17, 5, 5, 19, 3, 2, 1, 1), (2, 4, 9, 9, 6, 3, 1, 2, 2),
             (2, 6, 8, 8, 4, 3, 2, 2, 2), (3, 2, 1, 1, 3, 3, 1, 1, 1)]
    for i, (n, c, h, w, k, r, stride, pad, dilation) in enumerate(convs):
        op = f"conv{i}"
        x, filter = tensor(f"{op}.x", (n, c, h, w)), tensor(f"{op}.filter", (k, c, r, r))
        bias = tensor(f"{op}.bias", (k,))
        record(op, F.relu(F.conv2d(x, filter, bias, stride, pad, dilation)), dx=x, dfilter=filter, dbias=bias)

    x, filter, bias = tensor("linear.x", (5, 37)), tensor("linear.filter", (11, 37)), tensor("linear.bias", (11,))
    record("linear", F.linear(x, filter, bias), dx=x, dfilter=filter, dbias=bias)

    for op, (n, c, h, w), relu, add in [("bn0", (4, 5, 3, 6), False, False), ("bn1", (3, 16, 4, 4), True, False),
                                        ("bn2", (2, 33, 5, 3), True, True)]:
        x, shortcut = tensor(f"{op}.x", (n, c, h, w)), tensor(f"{op}.shortcut", (n, c, h, w))
        gamma, beta = tensor(f"{op}.gamma", (c,)), tensor(f"{op}.beta", (c,))
        mean, var = torch.zeros(c).double(), torch.ones(c).double()
        y = F.batch_norm(x, mean, var, gamma, beta, True, 0.1, 1e-5)
        y = y + shortcut if add else y
        grads = dict(dx=x, dgamma=gamma, dbeta=beta) | (dict(dshortcut=shortcut) if add else {})
        record(op, F.relu(y) if relu else y, **grads)
        out[f"{op}.running_mean"], out[f"{op}.running_var"] = mean.float(), var.float()
        y = F.batch_norm(x, mean, var, gamma, beta, False, 0.1, 1e-5)
        y = y + shortcut if add else y
        out[f"{op}.eval"] = (F.relu(y) if relu else y).detach().float()

    for op, shape, pool in [("max0", (2, 5, 9, 6), nn.MaxPool2d(3, 2, 1)), ("max1", (2, 8, 7, 8), nn.MaxPool2d(2, 2)),
                            ("avg0", (2, 6, 5, 4), nn.AdaptiveAvgPool2d(7)), ("avg1", (3, 9, 4, 6), nn.AdaptiveAvgPool2d(1)),
                            ("avg2", (1, 3, 15, 10), nn.AdaptiveAvgPool2d(7))]:
        x = tensor(f"{op}.x", shape)
        record(op, pool(x), dx=x)

    x = tensor("xent.x", (6, 12))
    loss = F.cross_entropy(x * 4, labels("xent.label", 6, 12))
    loss.backward()
    out["xent.loss"], out["xent.dx"] = loss.detach().float().reshape(1), (x.grad / 4).float()
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="tests/fixtures")
    folder = parser.parse_args().out
    torch.set_num_threads(1)
    made_by = dict(torch=torch.__version__, threads=str(torch.get_num_threads()), dtype="float64")
    os.makedirs(folder, exist_ok=True)
    save_file(ops(), os.path.join(folder, "ops.safetensors"), metadata=made_by)
    with open(os.path.join(folder, "networks.json"), "w") as f:
        rows = ",\n".join(json.dumps(network(**n)) for n in NETWORKS)
        f.write(f'{{"made_by": {json.dumps(made_by)}, "networks": [\n{rows}\n]}}\n')


if __name__ == "__main__":
    main()
