#!/usr/bin/env python3
"""Sets scadles-bench's GPU rows beside a PyTorch benchmark's: ratios, and which targets are reached.

    scripts/gpu_report.py OUT [FOLDER ...]

Reads bench.json, peers.jsonl and checks.jsonl from OUT and the FOLDERs, as scripts/gpu-check leaves them; writes table.md
and summary.json to OUT. What is missing is called not measured. The exit code is 1 if a check failed.
"""
import json, math, pathlib, re, sys

STEP_TARGET, CONV_TARGET, TOPK_SHARE_TARGET, TOPK_RATIO_TARGET, REDUCE_TARGET = 1.5, 70.0, 60.0, 10.0, 85.0


def read(folders, name):
    """The text of each such file."""
    return [path.read_text() for path in (folder / name for folder in folders) if path.is_file()]


def json_lines(texts):
    lines = (line for text in texts for line in text.splitlines())
    return [json.loads(line) for line in lines if line.startswith("{")]


def number(text):
    """1e6, 1e+06 and 1000000 are one number."""
    return f"{float(text):g}"


def peer_seconds(row):
    """Device time of a call: the graph's where there is one, without the host's launch cost."""
    times = [row[key] for key in ("us", "graph_us") if row.get(key)]
    return min(times) / 1e6 if times else None


def fastest(rows):
    """(seconds, row) of the fastest, or None."""
    timed = [(peer_seconds(row), row) for row in rows if peer_seconds(row)]
    return min(timed, key=lambda pair: pair[0]) if timed else None


class Peers:
    def __init__(self, rows):
        self.rows = [row for row in rows if "error" not in row and "skipped" not in row]

    def named(self, group, names, dtype=None):
        same = lambda row: dtype is None or row.get("dtype") == dtype
        return [row for row in self.rows if row.get("group") == group and row.get("name") in names and same(row)]

    def matching(self, group, pattern):
        return [row for row in self.rows if row.get("group") == group and re.search(pattern, row.get("name", ""))]

    def steps(self, name, batch, dtype):
        """Training rows of every mode: eager, whole-step graph, compiled."""
        is_it = lambda row: (row.get("name"), row.get("batch"), row.get("dtype")) == (name, batch, dtype)
        return [row for row in self.rows if is_it(row) and row.get("img_s")]


def dtypes(dtype):
    """The peer's types that ours is compared with, the like one first. PyTorch's f32 may be tf32."""
    return [dtype, "tf32"] if dtype == "fp32" else [dtype]


def candidates(row, peers):
    """(section, peer rows) of one of our kernel rows."""
    name = row["name"]
    if match := re.fullmatch(r"conv (.+) (bf16|fp32)", name):
        for dtype in dtypes(match[2]):
            if found := peers.named("conv", [match[1]], dtype):
                return "convolution", found
    elif match := re.fullmatch(r"(linear fwd .+) bf16", name):
        return "layers", peers.named("small", [match[1]], "bf16")
    elif match := re.fullmatch(r"softmax-CE fwd\+bwd (\S+) fp32", name):
        return "layers", peers.named("small", [f"softmax-CE fwd+bwd {match[1]}"])
    elif match := re.fullmatch(r"((?:bn train fwd|relu bwd|add|maxpool2x2 fwd|maxpool2x2 bwd) .+) (bf16|fp32)", name):
        return "layers", peers.named("norm", [match[1]], match[2])
    elif match := re.match(r"sgd-momentum-wd (\w+)", name):
        return "optimizer", peers.matching("opt", rf"^sgd-momentum-wd \w+ {match[1]} ")
    elif match := re.fullmatch(r"top-k \+ error feedback \+ pack n=(\S+) k=(\S+)", name):
        rows = peers.matching("ef", r"^top-k \+ error feedback, ")
        return "top-k", [r for r in rows if same_size(r["name"], match[1], match[2])]
    elif match := re.fullmatch(r"weighted mean (\d+) x (\S+)", name):
        rows = peers.matching("reduce", rf"^weighted mean {match[1]} x ")
        return "reduction", [r for r in rows if number(re.search(r" x (\S+):", r["name"])[1]) == number(match[2])]
    return None, []


def same_size(name, n, k):
    found = re.search(r"n=(\S+) k=(\S+)", name)
    return found and number(found[1]) == number(n) and number(found[2]) == number(k)


def kernels(rows, peers):
    for row in rows:
        section, found = candidates(row, peers)
        best = fastest(found)
        if best:
            seconds, peer = best
            yield dict(section=section, name=row["name"], ours_s=row["median_s"], peer_s=seconds,
                       peer=f"{peer['name']} {peer.get('dtype', '')}".strip(), ratio=seconds / row["median_s"],
                       percent=row["percent"], ceiling=row["ceiling"])
    # PyTorch times both passes of batch norm together.
    by_name = {row["name"]: row for row in rows}
    for row in rows:
        match = re.fullmatch(r"bn train fwd (.+) (bf16|fp32)", row["name"])
        back = match and by_name.get(f"bn train bwd {match[1]} {match[2]}")
        best = back and fastest(peers.named("norm", [f"bn train fwd+bwd (autograd) {match[1]}"], match[2]))
        if best:
            ours = row["median_s"] + back["median_s"]
            yield dict(section="layers", name=f"bn train fwd+bwd {match[1]} {match[2]}", ours_s=ours, peer_s=best[0],
                       peer=best[1]["name"], ratio=best[0] / ours, percent=None, ceiling=None)


def steps(rows, peers):
    for row in rows:
        match = re.fullmatch(r"train (\w+) b=(\d+) (bf16|fp32)", row["name"])
        if not match:
            continue
        for dtype in dtypes(match[3]):
            found = peers.steps(match[1], int(match[2]), dtype)
            if found:
                break
        entry = dict(name=row["name"], images_per_s=row["rate"], percent=row["percent"], ceiling=row["ceiling"],
                     flop_per_s=next((bound["rate"] for bound in row["bounds"]), None), memory_bytes=row.get("memory_bytes"))
        if found:
            best = max(found, key=lambda peer: peer["img_s"])
            memory = [peer["peak_mem_mib"] for peer in found if peer.get("peak_mem_mib")]
            entry.update(peer=f"{best.get('mode', best['group'])} {best['dtype']}", peer_images_per_s=best["img_s"],
                         ratio=row["rate"] / best["img_s"], peer_memory_bytes=min(memory) << 20 if memory else None)
        yield entry


def target(name, wanted, values, unit):
    """`values`: (what, value); the target is reached where all are."""
    if not values:
        return dict(target=name, wanted=f"{wanted:g} {unit}", state="not measured", lowest=None, where=None)
    where, lowest = min(values, key=lambda pair: pair[1])
    reached = sum(value >= wanted for _, value in values)
    state = "reached" if reached == len(values) else f"reached in {reached} of {len(values)}"
    return dict(target=name, wanted=f"{wanted:g} {unit}", state=state, lowest=lowest, where=where)


def targets(rows, joined, trained):
    share = lambda pattern: [(r["name"], r["percent"]) for r in rows if re.search(pattern, r["name"]) and r["percent"] is not None]
    flop_share = [(r["name"], bound["percent"]) for r in rows for bound in r["bounds"]
                  if re.match(r"conv 3x3(/2)? 512x(?!3x)\S+ \w+ bf16", r["name"]) and bound["ceiling"].endswith("-bf16")]
    large = r"^top-k \+ error feedback \+ pack n=(1e7|6e7|1e8|1\.4e8)"
    return [
        target("training step, bf16: images/s to PyTorch's best", STEP_TARGET,
               [(e["name"], e["ratio"]) for e in trained if "ratio" in e and e["name"].endswith("bf16")], "x"),
        target("3x3 convolutions of 512 images, bf16: share of the measured matrix peak", CONV_TARGET, flop_share, "%"),
        target("top-k + error feedback + pack from 1e7: share of the copy-bound floor", TOPK_SHARE_TARGET, share(large), "%"),
        target("top-k + error feedback + pack: speed to PyTorch's chain", TOPK_RATIO_TARGET,
               [(e["name"], e["ratio"]) for e in joined if e["section"] == "top-k"], "x"),
        target("weighted reduction from 1e7: share of copy bandwidth", REDUCE_TARGET, share(r"^weighted mean \d+ x [16]e7"), "%"),
        target("memory of a training step: PyTorch's to ours", 1.0,
               [(e["name"], e["peer_memory_bytes"] / e["memory_bytes"]) for e in trained
                if e.get("peer_memory_bytes") and e.get("memory_bytes")], "x"),
    ]


def time(seconds):
    return f"{seconds * 1e6:.1f} us" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


def markdown(header, lines):
    return "\n".join(["| " + " | ".join(header) + " |", "|" + " --- |" * len(header),
                      *("| " + " | ".join(line) + " |" for line in lines)])


def table(summary):
    show = lambda value, form: "" if value is None else format(value, form)
    parts = [f"# GPU check\n\n{summary['gpu']}; {summary['dates']}; {'passed' if summary['passed'] else 'FAILED'}"]
    if summary["tiny"]:
        parts.append("Small shapes, to try the rows: these numbers tell nothing about speed.")
    parts.append("## Targets\n\n" + markdown(["target", "wanted", "state", "lowest", "where"], (
        [t["target"], t["wanted"], t["state"], show(t["lowest"], ".3g"), t["where"] or ""] for t in summary["targets"])))
    if summary["ceilings"]:
        parts.append("## Ceilings\n\n" + markdown(["what", "rate"], (
            [c["name"], f"{c['rate'] / 1e9:,.0f} {'GB/s' if c['unit'] == 'bytes/s' else 'GFLOP/s'}"] for c in summary["ceilings"])))
    if summary["steps"]:
        mib = lambda value: "" if value is None else f"{value / 2**20:,.0f}"
        parts.append("## Training steps\n\n" + markdown(
            ["step", "images/s", "TFLOP/s", "% of ceiling", "MiB", "PyTorch's best", "images/s", "MiB", "ratio"], (
                [e["name"], f"{e['images_per_s']:,.0f}", show(e["flop_per_s"] and e["flop_per_s"] / 1e12, ".1f"),
                 show(e["percent"], ".1f"), mib(e["memory_bytes"]), e.get("peer", ""), show(e.get("peer_images_per_s"), ",.0f"),
                 mib(e.get("peer_memory_bytes")), show(e.get("ratio"), ".2f")] for e in summary["steps"])))
    for section in ("convolution", "layers", "optimizer", "top-k", "reduction"):
        joined = [entry for entry in summary["kernels"] if entry["section"] == section]
        if joined:
            parts.append(f"## Against PyTorch: {section}\n\n" + markdown(
                ["ours", "time", "% of ceiling", "PyTorch", "time", "ratio"], (
                    [e["name"], time(e["ours_s"]), show(e["percent"], ".1f"), e["peer"], time(e["peer_s"]), f"{e['ratio']:.2f}"]
                    for e in joined)))
            parts[-1] += f"\n\nGeometric mean of the ratios: {geometric_mean([e['ratio'] for e in joined]):.2f}"
    if summary["rows"]:
        parts.append("## All rows\n\n" + markdown(["row", "median", "spread", "% of ceiling", "ceiling"], (
            [r["name"], time(r["median_s"]), f"{100 * r['spread']:.1f} %", show(r["percent"], ".1f"), r["ceiling"] or ""]
            for r in summary["rows"])))
    if summary["failed"]:
        parts.append("## Rows without a time\n\n" + markdown(["row", "why"], ([f["name"], f["reason"]] for f in summary["failed"])))
    parts.append("## Checks\n\n" + markdown(["check", "status", "s", "detail"], (
        [c["check"], c["status"], str(c["seconds"]), c["detail"]] for c in summary["checks"])))
    return "\n\n".join(parts) + "\n"


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    out = pathlib.Path(sys.argv[1])
    folders = [out, *map(pathlib.Path, sys.argv[2:])]
    checks = json_lines(read(folders, "checks.jsonl"))
    peers = Peers(json_lines(read(folders, "peers.jsonl")))
    documents = [json.loads(text) for text in read(folders, "bench.json") if text.strip()]
    rows = [row for document in documents for row in document["rows"]]
    gpus = sorted({check["gpu"] for check in checks if check["gpu"] != "unknown"} or
                  {document["setting"]["gpu"] or "unknown" for document in documents})
    joined, trained = list(kernels(rows, peers)), list(steps(rows, peers))
    summary = dict(
        gpu=", ".join(gpus) or "unknown",
        dates=" to ".join(sorted({check["date"][:10] for check in checks})) or "no checks",
        passed=bool(checks) and all(check["status"] != "failed" for check in checks),
        tiny=any(document["setting"]["tiny"] for document in documents),
        settings=[document["setting"] for document in documents],
        peer=next((row for row in peers.rows if row.get("group") == "info" and "torch" in row), None),
        targets=targets(rows, joined, trained),
        ceilings=[dict(name=row["name"], rate=row["rate"], unit=row["rate_unit"]) for row in rows
                  if row["name"].startswith("ceiling ")],
        steps=trained, kernels=joined, checks=checks, rows=rows,
        failed=[row for document in documents for row in document["failed"]])
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    (out / "table.md").write_text(table(summary))
    for entry in summary["targets"]:
        print(f"{entry['target']}: {entry['wanted']}: {entry['state']}" +
              ("" if entry["lowest"] is None else f" (lowest {entry['lowest']:.3g}, {entry['where']})"))
    print(f"results: {out / 'table.md'}")
    return 0 if summary["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
