#!/usr/bin/env python3
"""Vision Transformers as they are published, small and of random numbers, with what they compute.

Writes NAME.safetensors (weights under their own names, as timm or Hugging Face store them) and NAME.expected.safetensors
(pictures, features after the last norm, logits) for every case, into the folder of this file. Needs numpy only. Each
case is computed from the published definition, in double: nothing is folded, packed or renamed here.
"""
import json
import pathlib
import struct

import numpy as np

HERE = pathlib.Path(__file__).parent
WIDTH, HIDDEN, DEPTH, HEADS, CLASSES, PATCH, CHANNELS = 12, 12, 2, 3, 4, 2, 3


def erf(x):
    """Abramowitz and Stegun 7.1.5 summed until nothing changes; enough for |x| < 5."""
    total = term = np.array(x, float)
    for n in range(1, 200):
        term = -term * x * x / n
        total = total + term / (2 * n + 1)
    return 2 / np.sqrt(np.pi) * total


def gelu(x):
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def norm(x, w, name, eps):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * w[name + ".weight"] + w[name + ".bias"]


def linear(x, w, name):
    return x @ w[name + ".weight"].T + w.get(name + ".bias", 0)


def attention(q, k, v):
    """softmax(q k / sqrt d) v of every head; q, k, v [B, T, WIDTH]."""
    split = lambda a: a.reshape(*a.shape[:2], HEADS, -1).transpose(0, 2, 1, 3)
    q, k, v = split(q), split(k), split(v)
    scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return (weights @ v).transpose(0, 2, 1, 3).reshape(q.shape[0], -1, WIDTH)


def patches_of(images):
    """[B, C, H, W] to [B, N, C PATCH PATCH], row by row of the grid."""
    b, c, h, w = images.shape
    cut = images.reshape(b, c, h // PATCH, PATCH, w // PATCH, PATCH).transpose(0, 2, 4, 1, 3, 5)
    return cut.reshape(b, -1, c * PATCH * PATCH)


def interpolated(positions, grid):
    """[h, w, D] to [*grid, D]: antialiased cubic convolution along both axes, a = -1/2."""

    def matrix(old, new):
        ratio = old / new
        distance = ((np.arange(old)[None] + 0.5) - (np.arange(new)[:, None] + 0.5) * ratio) / max(ratio, 1)
        x = np.abs(distance)
        inner, outer = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        rows = np.where(x < 1, inner, np.where(x < 2, outer, 0))
        return rows / rows.sum(1, keepdims=True)

    h, w, _ = positions.shape
    return np.einsum("yh,xw,hwd->yxd", matrix(h, grid[0]), matrix(w, grid[1]), positions)


def timm_model(w, images, eps=1e-6, before=1):
    """timm's VisionTransformer with a class token: LayerScale where there are factors; positions of any grid, with so
    many rows before those of the patches; registers or a distillation token behind the class token; norms of the
    tokens and of every head's queries and keys where there are weights for them."""
    grid = (images.shape[2] // PATCH, images.shape[3] // PATCH)
    b = len(images)
    weight = w["patch_embed.proj.weight"].reshape(WIDTH, -1)
    x = patches_of(images) @ weight.T + w.get("patch_embed.proj.bias", 0)
    stored = w["pos_embed"]
    front = np.concatenate([w[name][0] for name in ("cls_token", "dist_token", "reg_token") if name in w])
    rest = stored[0]
    if stored.ndim == 3:
        front[:before] += stored[0, :before]
        rest = stored[0, before:]
        side = round(len(rest)**0.5)
        rest = rest.reshape(grid[0], grid[1], WIDTH) if len(rest) == grid[0] * grid[1] else rest.reshape(side, side, WIDTH)
    if rest.shape[:2] != grid:
        rest = interpolated(rest, grid)
    x = x + rest.reshape(-1, WIDTH)
    x = np.concatenate([np.broadcast_to(front, (b, *front.shape)), x], 1)
    if "norm_pre.weight" in w:
        x = norm(x, w, "norm_pre", eps)
    for i in range(DEPTH):
        p = f"blocks.{i}."
        q, k, v = np.split(linear(norm(x, w, p + "norm1", eps), w, p + "attn.qkv"), 3, -1)
        if p + "attn.q_norm.weight" in w:
            q = norm(q.reshape(*q.shape[:2], HEADS, -1), w, p + "attn.q_norm", eps).reshape(q.shape)
            k = norm(k.reshape(*k.shape[:2], HEADS, -1), w, p + "attn.k_norm", eps).reshape(k.shape)
        x = x + w.get(p + "ls1.gamma", 1) * linear(attention(q, k, v), w, p + "attn.proj")
        hidden = gelu(linear(norm(x, w, p + "norm2", eps), w, p + "mlp.fc1"))
        x = x + w.get(p + "ls2.gamma", 1) * linear(hidden, w, p + "mlp.fc2")
    features = norm(x, w, "norm", eps)[:, 0]
    return features, linear(features, w, "head") if "head.weight" in w and "dist_token" not in w else None


def hugging_face_model(w, images, before, eps, dinov2):
    """ViTForImageClassification, or the features of Dinov2Model."""
    e = before + "embeddings."
    weight = w[e + "patch_embeddings.projection.weight"].reshape(WIDTH, -1)
    x = patches_of(images) @ weight.T + w[e + "patch_embeddings.projection.bias"]
    x = np.concatenate([np.broadcast_to(w[e + "cls_token"][0], (len(images), 1, WIDTH)), x], 1) + w[e + "position_embeddings"]
    for i in range(DEPTH):
        p = f"{before}encoder.layer.{i}."
        y = norm(x, w, p + ("norm1" if dinov2 else "layernorm_before"), eps)
        q, k, v = (linear(y, w, p + "attention.attention." + name) for name in ("query", "key", "value"))
        x = x + w.get(p + "layer_scale1.lambda1", 1) * linear(attention(q, k, v), w, p + "attention.output.dense")
        y = norm(x, w, p + ("norm2" if dinov2 else "layernorm_after"), eps)
        y = gelu(linear(y, w, p + ("mlp.fc1" if dinov2 else "intermediate.dense")))
        x = x + w.get(p + "layer_scale2.lambda1", 1) * linear(y, w, p + ("mlp.fc2" if dinov2 else "output.dense"))
    features = norm(x, w, before + "layernorm", eps)[:, 0]
    return features, linear(features, w, "classifier") if "classifier.weight" in w else None


def random_weights(seed, shapes):
    random = np.random.default_rng(seed)
    gain = lambda name: 1.0 if "norm" in name and name.endswith("weight") else 0.0
    return {name: 0.4 * random.normal(size=shape) + gain(name) for name, shape in shapes.items()}


def block_shapes(p, names):
    sizes = {"norm1": (WIDTH,), "norm2": (WIDTH,), "proj": (WIDTH, WIDTH), "fc1": (HIDDEN, WIDTH), "fc2": (WIDTH, HIDDEN),
             "qkv": (3 * WIDTH, WIDTH), "q": (WIDTH, WIDTH), "k": (WIDTH, WIDTH), "v": (WIDTH, WIDTH)}
    shapes = {}
    for part, name in names.items():
        shapes[p + name + ".weight"], shapes[p + name + ".bias"] = sizes[part], sizes[part][:1]
    return shapes


def timm_shapes(positions, scale=False):
    s = {"cls_token": (1, 1, WIDTH), "pos_embed": positions, "patch_embed.proj.weight": (WIDTH, CHANNELS, PATCH, PATCH),
         "patch_embed.proj.bias": (WIDTH,), "norm.weight": (WIDTH,), "norm.bias": (WIDTH,),
         "head.weight": (CLASSES, WIDTH), "head.bias": (CLASSES,)}
    names = {"norm1": "norm1", "norm2": "norm2", "qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
    for i in range(DEPTH):
        s.update(block_shapes(f"blocks.{i}.", names))
        if scale:
            s.update({f"blocks.{i}.ls1.gamma": (WIDTH,), f"blocks.{i}.ls2.gamma": (WIDTH,)})
    return s


def hugging_face_shapes(before, patches, dinov2):
    e = before + "embeddings."
    s = {e + "cls_token": (1, 1, WIDTH), e + "position_embeddings": (1, patches + 1, WIDTH),
         e + "patch_embeddings.projection.weight": (WIDTH, CHANNELS, PATCH, PATCH),
         e + "patch_embeddings.projection.bias": (WIDTH,), before + "layernorm.weight": (WIDTH,),
         before + "layernorm.bias": (WIDTH,)}
    names = {"q": "attention.attention.query", "k": "attention.attention.key", "v": "attention.attention.value",
             "proj": "attention.output.dense"}
    names.update({"norm1": "norm1", "norm2": "norm2", "fc1": "mlp.fc1", "fc2": "mlp.fc2"} if dinov2 else
                 {"norm1": "layernorm_before", "norm2": "layernorm_after", "fc1": "intermediate.dense", "fc2": "output.dense"})
    for i in range(DEPTH):
        p = f"{before}encoder.layer.{i}."
        s.update(block_shapes(p, names))
        if dinov2:
            s.update({p + "layer_scale1.lambda1": (WIDTH,), p + "layer_scale2.lambda1": (WIDTH,)})
    if dinov2:
        s[e + "mask_token"] = (1, WIDTH)
    else:
        s["classifier.weight"], s["classifier.bias"] = (CLASSES, WIDTH), (CLASSES,)
        s["pooler.dense.weight"], s["pooler.dense.bias"] = (WIDTH, WIDTH), (WIDTH,)
    return s


def stored(array, kind):
    """Bytes of an array in a type, and the numbers that they stand for."""
    if kind == "BF16":
        bits = (np.asarray(array, "<f4").view("<u4") >> 16).astype("<u2")
        return bits.tobytes(), (bits.astype("<u4") << 16).view("<f4").astype(float)
    small = np.asarray(array, {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[kind])
    return small.tobytes(), small.astype(float)


def write(path, arrays, kind):
    """A safetensors file, and the arrays as whoever reads it sees them."""
    header, data, seen = {}, b"", {}
    for name, array in arrays.items():
        raw, numbers = stored(array, kind)
        seen[name] = numbers.reshape(array.shape)
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return seen


def case(name, shapes, model, size=(4, 4), kind="F32"):
    """Writes a case; `model` maps weights and pictures to features and logits."""
    seed = sum(name.encode())
    weights = write(HERE / f"{name}.safetensors", random_weights(seed, shapes), kind)
    images = np.random.default_rng(seed + 1).normal(size=(2, CHANNELS, *size)).astype("<f4")
    features, logits = model(weights, images.astype(float))
    expected = {"images": images, "features": features}
    if logits is not None:
        expected["logits"] = logits
    write(HERE / f"{name}.expected.safetensors", expected, "F64")


def without(shapes, *ends):
    return {name: shape for name, shape in shapes.items() if not name.endswith(ends)}


if __name__ == "__main__":
    usual = (1, 5, WIDTH)
    case("layer_scale", timm_shapes(usual, scale=True), timm_model)
    case("no_embed_class", timm_shapes((1, 4, WIDTH)), lambda w, x: timm_model(w, x, before=0))
    case("grid_of_positions", timm_shapes((1, 2, 2, WIDTH)), timm_model)
    case("fewer_positions", timm_shapes((1, 17, WIDTH)), timm_model)
    case("oblong_pictures", timm_shapes((1, 10, WIDTH)), timm_model, size=(4, 10), kind="F64")
    case("oblong_positions", timm_shapes((1, 7, WIDTH)), timm_model, size=(4, 6))
    case("no_biases", without(timm_shapes(usual), "proj.bias", "fc1.bias", "fc2.bias", "head.bias"), timm_model)
    case("no_head", without(timm_shapes(usual), "head.weight", "head.bias"), timm_model)
    more = {"reg_token": (1, 3, WIDTH)}
    case("registers", timm_shapes((1, 4, WIDTH)) | more, lambda w, x: timm_model(w, x, before=0))
    case("registers_with_positions", timm_shapes((1, 4 + 9, WIDTH)) | more, lambda w, x: timm_model(w, x, before=4), kind="F16")
    second = {"dist_token": (1, 1, WIDTH), "head_dist.weight": (CLASSES, WIDTH), "head_dist.bias": (CLASSES,)}
    case("distilled", timm_shapes((1, 6, WIDTH)) | second, lambda w, x: timm_model(w, x, before=2), kind="F16")
    first = {"norm_pre.weight": (WIDTH,), "norm_pre.bias": (WIDTH,)}
    case("norm_pre", without(timm_shapes(usual), "patch_embed.proj.bias") | first, lambda w, x: timm_model(w, x, eps=1e-5))
    heads = {f"blocks.{i}.attn.{n}_norm.{end}": (WIDTH // HEADS,) for i in range(DEPTH) for n in "qk" for end in ("weight", "bias")}
    case("qk_norms", timm_shapes(usual) | heads, timm_model)
    case("hf_vit", hugging_face_shapes("vit.", 4, False), lambda w, x: hugging_face_model(w, x, "vit.", 1e-12, False), kind="F16")
    case("hf_dinov2", hugging_face_shapes("dinov2.", 4, True), lambda w, x: hugging_face_model(w, x, "dinov2.", 1e-6, True), kind="BF16")
