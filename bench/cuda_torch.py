"""PyTorch doing the work of bench/cuda_vit.cu on the same card, one JSON line a measurement.

Modes, each with the fused AdamW: `eager`; `graph`, the eager step as one CUDA graph; `compile`, the graph of a step
whose blocks went through torch.compile. Work: `train`, `forward`, `replay` (nine tenths of the tokens are multiplied by
0 and computed, as the published code of the method does) and `replay_kept` (the same number of tokens of each picture
is kept and nothing else computed, the most that dense tensors allow). Every step sends its batch to the card, as this
library's does; float32 parameters, bf16 by autocast. Exit status 77, with the reason, where it cannot run.
"""
import argparse
import json
import os
import sys
import time

try:
    import torch
    from torch import nn
    from torch.nn import functional
except ImportError as missing:
    print(f"PyTorch cannot be imported: {missing}")
    sys.exit(77)

DEVICE = "cuda"

# As in cuda_vit.cu. name: side of a picture, of a patch, channels, blocks, heads, classes, batch
CASES = {
    "c32": (32, 4, 192, 6, 3, 10, 64),
    "t64": (64, 8, 192, 6, 3, 100, 64),
    "ti16": (224, 16, 192, 12, 3, 1000, 8),
    "s16": (224, 16, 384, 12, 6, 1000, 8),
    "b16": (224, 16, 768, 12, 12, 1000, 4),
}
WORK = {"eager": ("train", "forward", "replay", "replay_kept"), "graph": ("train", "forward", "replay", "replay_kept"),
        "compile": ("train", "forward", "replay_kept")}


class TransformerBlock(nn.Module):
    """Pre-norm attention and MLP, as in the ViT."""

    def __init__(self, channels, heads):
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(channels, eps=1e-6)
        self.before_mlp = nn.LayerNorm(channels, eps=1e-6)
        self.packed = nn.Linear(channels, 3 * channels)
        self.joined = nn.Linear(channels, channels)
        self.up = nn.Linear(channels, 4 * channels)
        self.down = nn.Linear(4 * channels, channels)

    def forward(self, tokens):
        samples, length, channels = tokens.shape
        packed = self.packed(self.before_attention(tokens))
        packed = packed.view(samples, length, 3, self.heads, channels // self.heads)
        query, key, value = (packed[:, :, part].transpose(1, 2) for part in range(3))
        mixed = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        tokens = tokens + self.joined(mixed.reshape(samples, length, channels))
        return tokens + self.down(functional.gelu(self.up(self.before_mlp(tokens))))


class PatchClassifier(nn.Module):
    """A ViT on all patches [S, N, P], or on those at places [S, N]; a mask [S, N, 1] multiplies the embedded patches."""

    def __init__(self, places, patch_numbers, channels, depth, heads, classes):
        super().__init__()
        self.embed = nn.Linear(patch_numbers, channels)
        self.class_token = nn.Parameter(torch.zeros(channels))
        self.position = nn.Parameter(0.02 * torch.randn(places + 1, channels))
        self.blocks = nn.ModuleList(TransformerBlock(channels, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.head = nn.Linear(channels, classes)

    def forward(self, patches, places=None, mask=None):
        tokens = self.embed(patches)
        if mask is not None:
            tokens = tokens * mask
        position = self.position[1:]
        if places is not None:
            position = position.index_select(0, places.flatten()).view(*places.shape, -1)
        tokens = tokens + position
        first = (self.class_token + self.position[0]).expand(len(tokens), 1, -1)
        tokens = torch.cat([first.to(tokens.dtype), tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens[:, 0]))


class Batch:
    """Noise in pinned memory and its place on the card."""

    def __init__(self, work, samples, places, patch_numbers, classes):
        kept = max(1, round(0.1 * places)) if work == "replay_kept" else places
        host = {"patches": torch.randn(samples, kept, patch_numbers), "labels": torch.randint(0, classes, (samples,))}
        if work == "replay":
            host["mask"] = (torch.rand(samples, kept, 1) < 0.1).float()
        if work == "replay_kept":
            host["places"] = torch.stack([torch.randperm(places)[:kept].sort().values for _ in range(samples)])
        self.host = {name: tensor.pin_memory() for name, tensor in host.items()}
        self.here = {name: tensor.to(DEVICE) for name, tensor in host.items()}

    def send(self):
        for name, tensor in self.host.items():
            self.here[name].copy_(tensor, non_blocking=True)


def logits_of(model, batch, arithmetic):
    here = batch.here
    # No cache of cast weights: a graph would keep the cast of the step that was captured.
    with torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=arithmetic == "bf16", cache_enabled=False):
        return model(here["patches"], here.get("places"), here.get("mask"))


def step_of(work, model, batch, arithmetic):
    """The work on a batch that is on the card."""
    if work == "forward":
        def infer():
            with torch.no_grad():
                logits_of(model, batch, arithmetic)
        return infer
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True, capturable=True)

    def train():
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(logits_of(model, batch, arithmetic).float(), batch.here["labels"]).backward()
        optimizer.step()
    return train


def compile_blocks(model):
    """All blocks share one piece of code; beyond a limit of its versions PyTorch stops compiling without a word."""
    from torch._dynamo import config
    for name in ("recompile_limit", "cache_size_limit"):
        if hasattr(config, name):
            setattr(config, name, 64)
    torch.compiler.reset()
    for block in model.blocks:
        block.compile(dynamic=False)


def captured(step):
    """The step as a CUDA graph; the steps before it allocate what stays."""
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def median_seconds(job, repeats):
    """As seconds_of of cuda_vit.cu: until the card is done, after runs of a fifth of a second that do not count."""
    seconds, first, warm_ups = [], time.perf_counter(), 0
    while len(seconds) < repeats:
        torch.cuda.synchronize()
        begin = time.perf_counter()
        job()
        torch.cuda.synchronize()
        if warm_ups < 3 or begin - first < 0.2:
            warm_ups += 1
        else:
            seconds.append(time.perf_counter() - begin)
    return sorted(seconds)[len(seconds) // 2]


def measure(case, work, mode, arithmetic, batch_size, repeats):
    side, patch, channels, depth, heads, classes, usual = CASES[case]
    samples, places, patch_numbers = batch_size or usual, (side // patch) ** 2, 3 * patch * patch
    torch.manual_seed(1)
    torch.set_float32_matmul_precision("high" if arithmetic == "tf32" else "highest")
    model = PatchClassifier(places, patch_numbers, channels, depth, heads, classes).to(DEVICE)
    if mode == "compile":
        compile_blocks(model)
    batch = Batch(work, samples, places, patch_numbers, classes)
    step = step_of(work, model, batch, arithmetic)
    if mode != "eager":
        step = captured(step)

    def job():
        batch.send()
        step()
    seconds = median_seconds(job, repeats)
    return {"batch": samples, "images_per_s": round(samples / seconds, 2), "median_ms": round(seconds * 1e3, 3)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="store_true", help="print PyTorch's version and end")
    parser.add_argument("--cases", default="c32,ti16,s16,b16")
    parser.add_argument("--arithmetic", default="tf32", help="of f32, tf32, bf16, with commas")
    parser.add_argument("--modes", default="eager,graph,compile")
    parser.add_argument("--batch", type=int, default=0, help="0: the case's own")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.7 * float(os.environ.get("STAGE_SECONDS", "600")),
                        help="begin no measurement later (default: 0.7 of STAGE_SECONDS)")
    options = parser.parse_args()
    begin = time.perf_counter()
    if not torch.cuda.is_available():
        print(f"PyTorch {torch.__version__} finds no CUDA device")
        sys.exit(77)
    if options.version:
        print(torch.__version__)
        return
    plan = [(mode, case, arithmetic, work) for mode in options.modes.split(",") for case in options.cases.split(",")
            for arithmetic in options.arithmetic.split(",") for work in WORK[mode]]
    measured = 0
    for number, (mode, case, arithmetic, work) in enumerate(plan):
        if time.perf_counter() - begin > options.seconds:
            print(json.dumps({"stopped": f"no time for {len(plan) - number} of {len(plan)} measurements, from {mode} "
                                         f"{case} {arithmetic} {work} on"}), flush=True)
            break
        line = {"case": case, "work": work, "dtype": arithmetic, "mode": mode, "torch": torch.__version__}
        try:
            line.update(measure(case, work, mode, arithmetic, options.batch, options.repeats))
            measured += 1
        except Exception as problem:  # one mode that does not run must not cost the others
            line["error"] = f"{type(problem).__name__}: {problem}"[:300]
        print(json.dumps(line), flush=True)
    sys.exit(0 if measured else 1)


if __name__ == "__main__":
    main()
