"""PyTorch doing what a row of scadles-bench does. `scadles-bench peers` starts it and talks to it in JSON lines.

In:  first the work, as in {"kind": "train", "model": "resnet18", "stem": "cifar", "batch": 64, "dtype": "f32",
     "threads": 2, "layout": "channels-last", "compile": false}; then {"seconds": 0.5} for each measurement
Out: {"ready": VERSION} or {"error": TEXT}; then {"calls": N, "seconds": S, "peak_bytes": B} for each measurement
"""

import contextlib
import json
import os
import sys
import time


def lines():
    return (json.loads(line) for line in sys.stdin)


def answer(**fields):
    print(json.dumps(fields), flush=True)


def peak_bytes():
    """Most memory that was resident at once, since reset_peak."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return 0


def resident_bytes():
    with open("/proc/self/statm") as sizes:
        return os.sysconf("SC_PAGE_SIZE") * int(sizes.read().split()[1])


work = next(lines())
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(work["threads"])
try:
    import torch
    import torch.nn.functional as F
    from torch import nn
except ImportError as error:
    answer(error=f"{sys.executable} cannot import torch: {error}")
    sys.exit(0)

torch.set_num_threads(work["threads"])
torch.manual_seed(0)
torch.set_flush_denormal(True)
LAST = work.get("layout") == "channels-last"
BF16 = work.get("dtype") == "bf16"


def conv(c, k, size, stride=1, bias=False):
    return nn.Conv2d(c, k, size, stride, size // 2, bias=bias)


class Pad(nn.Module):
    """The parameter-free shortcut of CIFAR ResNets: every second pixel, zeros in the new channels."""

    def __init__(self, extra):
        super().__init__()
        self.extra = extra

    def forward(self, x):
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))


class Block(nn.Module):
    def __init__(self, c, k, stride, bottleneck, pad):
        super().__init__()
        out = 4 * k if bottleneck else k
        sizes = [(c, k, 1, 1), (k, k, 3, stride), (k, out, 1, 1)] if bottleneck else [(c, k, 3, stride), (k, k, 3, 1)]
        layers = []
        for shape in sizes:
            layers += [conv(*shape), nn.BatchNorm2d(shape[1]), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers[:-1])
        self.shortcut = nn.Identity()
        if stride != 1 or c != out:
            self.shortcut = Pad(out - c) if pad else nn.Sequential(conv(c, out, 1, stride), nn.BatchNorm2d(out))

    def forward(self, x):
        return F.relu(self.body(x) + self.shortcut(x), inplace=True)


def resnet(depths, widths, bottleneck, stem, pad=False):
    first = widths[0]
    if stem == "imagenet":
        layers = [conv(3, first, 7, 2), nn.BatchNorm2d(first), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    else:
        layers = [conv(3, first, 3), nn.BatchNorm2d(first), nn.ReLU(inplace=True)]
    c = first
    for stage, (depth, k) in enumerate(zip(depths, widths)):
        for i in range(depth):
            layers.append(Block(c, k, 2 if stage > 0 and i == 0 else 1, bottleneck, pad))
            c = 4 * k if bottleneck else k
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 10))


def vgg19_bn():
    layers, c = [], 3
    for count, k in zip((2, 2, 4, 4, 4), (64, 128, 256, 512, 512)):
        for _ in range(count):
            layers += [conv(c, k, 3, bias=True), nn.BatchNorm2d(k), nn.ReLU(inplace=True)]
            c = k
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10))


MODELS = {
    "resnet20": lambda stem: resnet((3, 3, 3), (16, 32, 64), False, stem, pad=True),
    "resnet18": lambda stem: resnet((2, 2, 2, 2), (64, 128, 256, 512), False, stem),
    "resnet152": lambda stem: resnet((3, 8, 36, 3), (64, 128, 256, 512), True, stem),
    "vgg19_bn": lambda stem: vgg19_bn(),
}


def layout(x):
    return x.to(memory_format=torch.channels_last) if LAST and x.dim() == 4 else x


def network():
    model = layout_model(MODELS[work["model"]](work["stem"]))
    x = layout(torch.rand(work["batch"], 3, 32, 32) * 2 - 1)
    labels = torch.arange(work["batch"]) % 10
    return model, x, labels


def layout_model(model):
    return model.to(memory_format=torch.channels_last) if LAST else model


def autocast():
    return torch.autocast("cpu", dtype=torch.bfloat16) if BF16 else contextlib.nullcontext()


def train():
    model, x, labels = network()
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4, fused=True)
    forward = torch.compile(model) if work.get("compile") else model

    def step():
        optimizer.zero_grad(set_to_none=True)
        with autocast():
            loss = F.cross_entropy(forward(x).float(), labels)
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss)

    return step


def infer():
    model, x, _ = network()
    model.eval()
    if work.get("compile"):
        from torch._inductor import config

        config.freezing = True
        model = torch.compile(model)
    mode = torch.no_grad if work.get("compile") else torch.inference_mode

    def step():
        with mode(), autocast():
            model(x)

    return step


def convolution():
    n, c, size, k, filter_size, stride = (work[key] for key in ("n", "c", "size", "k", "filter", "stride"))
    dtype = torch.bfloat16 if BF16 else torch.float32
    x = layout(torch.rand(n, c, size, size) - 0.5).to(dtype)
    w = layout(torch.rand(k, c, filter_size, filter_size) - 0.5).to(dtype)
    padding = filter_size // 2
    y = F.conv2d(x, w, None, stride, padding)
    dy = layout(torch.rand(y.shape) - 0.5).to(dtype)
    which = {"dgrad": [True, False, False], "wgrad": [False, True, False]}
    common = (None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1)

    def forward():
        F.conv2d(x, w, None, stride, padding)

    def backward():
        torch.ops.aten.convolution_backward(dy, x, w, *common, which[work["pass"]])

    return forward if work["pass"] == "fprop" else backward


def top_k():
    """Error feedback as gradient compression libraries write it; or, as `sampled`, with a threshold from 1 % of it."""
    numel = work["numel"]
    kept = max(1, int(numel * work["density"]))
    gradient, residual = torch.randn(numel), [torch.zeros(numel)]

    def usual():
        p = gradient + residual[0]
        positions = torch.topk(p.abs(), kept, sorted=False)[1]
        values = p.gather(0, positions)
        residual[0] = p - torch.zeros_like(p).scatter_(0, positions, values)

    def sampled():
        p = residual[0].add_(gradient)
        size = p.abs()
        sample = size[torch.randint(0, numel, (max(1000, numel // 100),))]
        least = torch.topk(sample, max(1, int(len(sample) * work["density"])), sorted=False)[0].min()
        positions = (size >= least).nonzero().squeeze(1)
        p.index_select(0, positions)
        p.index_fill_(0, positions, 0.0)

    return sampled if work["way"] == "sampled" else usual


def weighted_sum():
    count, numel = work["count"], work["numel"]
    matrix, out = torch.rand(count, numel), torch.empty(numel)
    weights = torch.full((count,), 1 / count)
    if work["way"] == "product":
        return lambda: torch.mv(matrix.t(), weights, out=out)

    def one_by_one():
        torch.mul(matrix[0], 1 / count, out=out)
        for row in matrix[1:]:
            out.add_(row, alpha=1 / count)

    return one_by_one


def sgd():
    parameter = nn.Parameter(torch.rand(work["numel"]))
    parameter.grad = torch.rand(work["numel"])
    return torch.optim.SGD([parameter], lr=1e-4, momentum=0.9, weight_decay=5e-4, fused=True).step


KINDS = {
    "train": train,
    "infer": infer,
    "conv": convolution,
    "top-k": top_k,
    "weighted-sum": weighted_sum,
    "sgd": sgd,
}

try:
    with open("/proc/self/clear_refs", "w") as reset:
        reset.write("5")
except OSError:
    pass
before = resident_bytes()
try:
    with torch.no_grad() if work["kind"] in ("conv", "sgd") else contextlib.nullcontext():
        step = KINDS[work["kind"]]()
        step()
        step()
        answer(ready=torch.__version__)
        for order in lines():
            calls, began = 0, time.perf_counter()
            while calls == 0 or time.perf_counter() - began < order["seconds"]:
                step()
                calls += 1
            spent = time.perf_counter() - began
            answer(calls=calls, seconds=spent, peak_bytes=max(0, peak_bytes() - before))
except Exception as error:  # whatever it is, the other side must hear of it
    answer(error=f"{type(error).__name__}: {error}")
