#!/usr/bin/env python3
"""Training steps of scadles against PyTorch on this CPU, alternating, same threads, f32.

  python3 scripts/peer_training_step.py --out results/training-step.json

Needs `cargo build --release` and PyTorch. Each round times `scadles-bench step/<model>` and, in a process of its own, the
same network in PyTorch (oneDNN) in both memory layouts with fused SGD. Prints images/s and ratios: median over rounds and spread.
"""
import argparse, json, os, statistics, subprocess, sys, time

ap = argparse.ArgumentParser()
ap.add_argument("--models", default="resnet20,resnet18")
ap.add_argument("--batch", type=int, default=64)
ap.add_argument("--threads", type=int, default=2)
ap.add_argument("--rounds", type=int, default=5)
ap.add_argument("--seconds", type=float, default=3.0, help="for each measurement")
ap.add_argument("--bench", default="target/release/scadles-bench")
ap.add_argument("--out")
ap.add_argument("--torch", metavar="MODEL:LAYOUT", help="measure PyTorch once and print images/s (used by itself)")
a = ap.parse_args()


def measure_torch(model, layout):
    import torch, torch.nn.functional as F
    from make_fixtures import build
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    torch.set_default_dtype(torch.float32)
    memory = torch.channels_last if layout == "channels-last" else torch.contiguous_format
    net = build(model, "cifar", 10, 1.0).float().to(memory_format=memory).train()
    for p in net.parameters():
        if p.dim() > 1:
            torch.nn.init.kaiming_normal_(p)
    x = torch.randn(a.batch, 3, 32, 32).to(memory_format=memory)
    y = torch.randint(0, 10, (a.batch,))
    opt = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4, fused=True)

    def step():
        opt.zero_grad(set_to_none=True)
        F.cross_entropy(net(x), y).backward()
        opt.step()

    step(), step()
    times, end = [], time.perf_counter() + a.seconds
    while len(times) < 5 or time.perf_counter() < end:
        t = time.perf_counter()
        step()
        times.append(time.perf_counter() - t)
    print(json.dumps({"images_per_s": a.batch / statistics.median(times), "torch": torch.__version__}))


def measure_scadles(model):
    row = f"step/{model}-cifar-b{a.batch}"
    out = subprocess.run([a.bench, "--json", "--threads", str(a.threads), "--time", str(a.seconds), row],
                         check=True, capture_output=True, text=True).stdout
    found = json.loads(out)
    return found["rows"][0]["rate"], found["setting"]


if a.torch:
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    measure_torch(*a.torch.split(":"))
    sys.exit()

result = {"command": sys.argv, "threads": a.threads, "batch": a.batch, "rounds": []}
for _ in range(a.rounds):
    row = {"load": os.getloadavg()[0]}
    for model in a.models.split(","):
        ours, result["scadles"] = measure_scadles(model)
        row[f"{model} scadles"] = ours
        for layout in ("channels-last", "nchw"):
            flags = [f"--batch={a.batch}", f"--threads={a.threads}", f"--seconds={a.seconds}"]
            out = subprocess.run([sys.executable, __file__, f"--torch={model}:{layout}", *flags], check=True,
                                 capture_output=True, text=True).stdout
            found = json.loads(out.strip().splitlines()[-1])
            row[f"{model} torch {layout}"], result["torch"] = found["images_per_s"], found["torch"]
    result["rounds"].append(row)
result["ratios"] = {}
for model in a.models.split(","):
    ratios = [r[f"{model} scadles"] / max(r[f"{model} torch channels-last"], r[f"{model} torch nchw"])
              for r in result["rounds"]]
    median = lambda key: statistics.median(r[key] for r in result["rounds"])
    result["ratios"][model] = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
    print(f"{model} b={a.batch}: scadles {median(model + ' scadles'):.0f} images/s, PyTorch channels-last "
          f"{median(model + ' torch channels-last'):.0f}, nchw {median(model + ' torch nchw'):.0f}; ratio to its best "
          f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
if a.out:
    with open(a.out, "w") as f:
        json.dump(result, f, indent=1)
