"""Plain forward passes of the networks for single frames, on the authors' state dicts.

Written from the descriptions of the networks, as straightforward PyTorch in eager mode: batch norms
are not folded, attention is two products and a softmax, each action unit has its own layer, and
stage 2 of the graph networks projects 49 tokens for each edge. Nothing here uses the networks of
pyfau, so this is also an independent check of the variants without stored outputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pyfau.models.frame_config import FrameConfig

State = dict[str, Tensor]
WINDOW = 7


class Reader:
    """A state dict that notes which tensors were used.

    Args:
        state: The authors' state dict, without `module.` prefixes.
        prefix: Start of the names.
    """

    def __init__(self, state: State, prefix: str = "", used: set[str] | None = None) -> None:
        self.state, self.prefix = state, prefix
        self.used: set[str] = set() if used is None else used

    def under(self, name: str) -> Reader:
        """The tensors whose names start with a name and a dot."""
        return Reader(self.state, f"{self.prefix}{name}.", self.used)

    def __getitem__(self, name: str) -> Tensor:
        self.used.add(self.prefix + name)
        return self.state[self.prefix + name]

    def get(self, name: str) -> Tensor | None:
        """A tensor; None if it does not exist."""
        return self[name] if self.prefix + name in self.state else None

    def has(self, name: str) -> bool:
        """Whether any name starts with this."""
        return any(key.startswith(self.prefix + name) for key in self.state)


def linear(part: Reader, x: Tensor) -> Tensor:
    return F.linear(x, part["weight"], part.get("bias"))


def batch_norm(part: Reader, x: Tensor) -> Tensor:
    """Batch norm over axis 1."""
    part.used.add(f"{part.prefix}num_batches_tracked")
    statistics = part["running_mean"], part["running_var"]
    return F.batch_norm(x, *statistics, part["weight"], part["bias"], eps=1e-5)


def layer_norm(part: Reader, x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], part["weight"], part["bias"], eps)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Attention of scaled queries."""
    logits = q @ k.transpose(-1, -2)
    return (logits if bias is None else logits + bias).softmax(dim=-1) @ v


# ResNet


def conv_norm(part: Reader, conv: str, norm: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = part[f"{conv}.weight"]
    return batch_norm(part.under(norm), F.conv2d(x, weight, None, stride, weight.shape[-1] // 2))


def residual_block(part: Reader, x: Tensor, stride: int) -> Tensor:
    is_bottleneck = part.has("conv3")
    y = F.relu(conv_norm(part, "conv1", "bn1", x, 1 if is_bottleneck else stride))
    y = conv_norm(part, "conv2", "bn2", y, stride if is_bottleneck else 1)
    if is_bottleneck:
        y = conv_norm(part, "conv3", "bn3", F.relu(y))
    if part.has("downsample"):
        x = conv_norm(part, "downsample.0", "downsample.1", x, stride)
    return F.relu(x + y)


def resnet(part: Reader, x: Tensor, names: tuple[str, ...]) -> Tensor:
    """(F, 3, S, S) -> (F, C, 7, 7).

    Args:
        part: The backbone.
        x: The images.
        names: Of the first convolution, its norm and the four stages.
    """
    x = F.max_pool2d(F.relu(conv_norm(part, names[0], names[1], x, 2)), 3, 2, 1)
    for stage, name in enumerate(names[2:]):
        block = 0
        while part.has(f"{name}.{block}."):
            stride = 2 if stage and not block else 1
            x = residual_block(part.under(f"{name}.{block}"), x, stride)
            block += 1
    return x


# Swin


def windows(x: Tensor) -> Tensor:
    """(F, H, W, C) -> (F * windows, 49, C)."""
    f, h, w, c = x.shape
    x = x.view(f, h // WINDOW, WINDOW, w // WINDOW, WINDOW, c)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, WINDOW * WINDOW, c)


def shift_mask(side: int, shift: int) -> Tensor:
    area = torch.zeros(1, side, side, 1)
    parts = (slice(0, -WINDOW), slice(-WINDOW, -shift), slice(-shift, None))
    for i, rows in enumerate(parts):
        for j, columns in enumerate(parts):
            area[:, rows, columns] = 3 * i + j
    flat = windows(area)[..., 0]
    apart = flat[:, None, :] != flat[:, :, None]
    return torch.zeros(apart.shape).masked_fill(apart, -100.0)


def relative_index() -> Tensor:
    places = [(i, j) for i in range(WINDOW) for j in range(WINDOW)]
    rows = [
        [(a - c + WINDOW - 1) * (2 * WINDOW - 1) + b - d + WINDOW - 1 for c, d in places]
        for a, b in places
    ]
    return torch.tensor(rows)


def window_attention(part: Reader, x: Tensor, mask: Tensor | None) -> Tensor:
    count, tokens, c = x.shape
    table = part["relative_position_bias_table"]
    heads = table.shape[1]
    part.used.add(f"{part.prefix}relative_position_index")
    qkv = linear(part.under("qkv"), x).reshape(count, tokens, 3, heads, c // heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    bias = table[relative_index().view(-1)].view(tokens, tokens, heads).permute(2, 0, 1)[None]
    if mask is not None:
        bias = bias + mask.repeat(count // len(mask), 1, 1)[:, None]
    y = attend(q * (c // heads) ** -0.5, k, v, bias)
    return linear(part.under("proj"), y.transpose(1, 2).reshape(count, tokens, c))


def swin_block(part: Reader, x: Tensor, side: int, shift: int) -> Tensor:
    f, tokens, c = x.shape
    y = layer_norm(part.under("norm1"), x, 1e-5).view(f, side, side, c)
    if shift:
        part.used.add(f"{part.prefix}attn_mask")
        y = y.roll((-shift, -shift), (1, 2))
    y = window_attention(part.under("attn"), windows(y), shift_mask(side, shift) if shift else None)
    many = side // WINDOW
    y = y.view(f, many, many, WINDOW, WINDOW, c).permute(0, 1, 3, 2, 4, 5)
    y = y.contiguous().view(f, side, side, c)
    if shift:
        y = y.roll((shift, shift), (1, 2))
    x = x + y.view(f, tokens, c)
    y = F.gelu(linear(part.under("mlp.fc1"), layer_norm(part.under("norm2"), x, 1e-5)))
    return x + linear(part.under("mlp.fc2"), y)


def merge_patches(part: Reader, x: Tensor, side: int) -> Tensor:
    x = x.view(len(x), side, side, -1)
    corners = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
    y = torch.cat(corners, dim=-1).flatten(1, 2)
    return linear(part.under("reduction"), layer_norm(part.under("norm"), y, 1e-5))


def swin(part: Reader, x: Tensor) -> Tensor:
    """(F, 3, 224, 224) -> (F, 49, C)."""
    patches = part.under("patch_embed")
    x = F.conv2d(x, patches["proj.weight"], patches["proj.bias"], 4).flatten(2).transpose(1, 2)
    x = layer_norm(patches.under("norm"), x, 1e-5)
    side, stage = 56, 0
    while part.has(f"layers.{stage}."):
        layer = part.under(f"layers.{stage}")
        block = 0
        while layer.has(f"blocks.{block}."):
            shift = WINDOW // 2 if block % 2 and side > WINDOW else 0
            x = swin_block(layer.under(f"blocks.{block}"), x, side, shift)
            block += 1
        if layer.has("downsample"):
            x = merge_patches(layer.under("downsample"), x, side)
            side //= 2
        stage += 1
    return layer_norm(part.under("norm"), x, 1e-5)


# Graph networks


def fully(part: Reader, x: Tensor) -> Tensor:
    """ReLU(BN(fc)) of (F, 49, C)."""
    y = linear(part.under("fc"), x).permute(0, 2, 1)
    return F.relu(batch_norm(part.under("bn"), y)).permute(0, 2, 1)


def nearest_graph(part: Reader, nodes: Tensor, count: int) -> Tensor:
    likeness = torch.einsum("fic,fjc->fij", nodes, nodes)
    threshold = likeness.topk(count, dim=-1)[0][:, :, -1:]
    edges = (likeness >= threshold).float()
    scale = torch.diag_embed(edges.sum(dim=-1) ** -0.5)
    mixed = scale @ edges @ scale @ linear(part.under("V"), nodes) + linear(part.under("U"), nodes)
    return F.relu(nodes + batch_norm(part.under("bnv"), mixed))


def cross_attention(part: Reader, y: Tensor, x: Tensor) -> Tensor:
    """Queries from y, keys and values from x."""
    q, k = linear(part.under("linear_q"), y), linear(part.under("linear_k"), x)
    return attend(q * q.shape[-1] ** -0.5, k, linear(part.under("linear_v"), x))


def edge_features(part: Reader, units: Tensor, tokens: Tensor) -> Tensor:
    f, n, t, c = units.shape
    features = cross_attention(part.under("FAM"), units, tokens[:, None].expand(f, n, t, c))
    ends = features.repeat(1, n, 1, 1)  # edge i * N + j: queries of node j
    starts = features.repeat_interleave(n, dim=1)
    edges = linear(part.under("edge_proj"), cross_attention(part.under("ARM"), ends, starts))
    return batch_norm(part.under("bn"), edges).mean(dim=2)


def edge_graph(
    part: Reader, names: dict[str, str], nodes: Tensor, edges: Tensor, relu_after_sum: bool
) -> tuple[Tensor, Tensor]:
    n = nodes.shape[1]
    numbers = torch.arange(n * n)
    start = F.one_hot(numbers // n, n).float()
    end = F.one_hot(numbers % n, n).float()
    change = start @ linear(part.under(names["A"]), nodes)
    change = change + end @ linear(part.under(names["B"]), nodes)
    change = change + linear(part.under(names["E"]), edges)
    edges = edges + F.relu(batch_norm(part.under(names["bne"]), change))
    gates = edges.sigmoid().view(len(nodes), n, n, -1).softmax(dim=2).flatten(1, 2)
    messages = gates * (end @ linear(part.under(names["V"]), nodes))
    update = linear(part.under(names["U"]), nodes) + start.T @ messages / n
    update = batch_norm(part.under(names["bnv"]), update)
    return (F.relu(nodes + update) if relu_after_sum else nodes + F.relu(update)), edges


def graph_network(config: FrameConfig, state: Reader, x: Tensor) -> Tensor:
    is_megraphau = config.network == "megraphau"
    backbone = state.under("backbone")
    if config.backbone.startswith("resnet"):
        names = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
        tokens = resnet(backbone, x, names).flatten(2).permute(0, 2, 1)
    else:
        tokens = swin(backbone, x)
    tokens = fully(state.under("global_linear"), tokens)
    head = state.under("head")
    kind = "class_linears" if is_megraphau else "main_class_linears"
    n = sum(output.side == "" for output in config.outputs)
    units = torch.stack([fully(head.under(f"{kind}.{i}"), tokens) for i in range(n)], dim=1)
    nodes = units.mean(dim=2)
    if config.variant == "stage1":
        nodes = nearest_graph(head.under("gnn"), nodes, 3 if n == 8 else 4)
    else:
        edges = edge_features(head.under("edge_extractor"), units, tokens)
        letters = ("U", "V", "A", "B", "E", "bnv", "bne")
        for layer in (1, 2):
            part = head.under("gnn" if is_megraphau else f"gnn.graph_layers.{layer - 1}")
            known = {name: f"{name}{layer}" if is_megraphau else name for name in letters}
            nodes, edges = edge_graph(part, known, nodes, edges, is_megraphau)
        if is_megraphau:
            linear(head.under("edge_fc"), edges)
    if is_megraphau:
        return cosine(nodes, head["sc"])
    sides = [node for node in (0, 1, 2, 4, 7, 8, 11) for _ in range(2)]
    return torch.cat([cosine(nodes, head["main_sc"]), cosine(nodes[:, sides], head["sub_sc"])], 1)


def cosine(nodes: Tensor, classes: Tensor) -> Tensor:
    classes = F.normalize(F.relu(classes).view(1, *classes.shape), dim=-1)
    return (F.normalize(nodes, dim=-1) * classes).sum(dim=-1)


# The others


def libreface(config: FrameConfig, state: Reader, x: Tensor) -> Tensor:
    outputs = []
    heads = {"classifier": 5.0, "classifier_2": 1.0}
    for name, scale in heads.items():
        head = state.under(name)
        if not head.has("0"):
            continue
        # The authors' program runs the encoder once for each head.
        maps = resnet(state.under("encoder"), x, ("0", "1", "4", "5", "6", "7"))
        hidden = F.relu(linear(head.under("0"), maps.mean(dim=(2, 3))))
        hidden = batch_norm(head.under("2"), hidden)
        outputs.append(scale * linear(head.under("4"), hidden).sigmoid())
    return torch.cat(outputs, dim=1)


def vision_transformer(config: FrameConfig, state: Reader, x: Tensor) -> Tensor:
    heads = {"vit_s": 6, "vit_b": 12, "vit_l": 16}[config.backbone]
    patches = F.conv2d(x, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], 16)
    x = patches.flatten(2).transpose(1, 2)
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x], dim=1) + state["pos_embed"]
    block = 0
    while state.has(f"blocks.{block}."):
        part = state.under(f"blocks.{block}")
        f, tokens, c = x.shape
        qkv = linear(part.under("attn.qkv"), layer_norm(part.under("norm1"), x, 1e-6))
        q, k, v = qkv.reshape(f, tokens, 3, heads, c // heads).permute(2, 0, 3, 1, 4)
        y = attend(q * (c // heads) ** -0.5, k, v).transpose(1, 2).reshape(f, tokens, c)
        x = x + linear(part.under("attn.proj"), y)
        y = F.gelu(linear(part.under("mlp.fc1"), layer_norm(part.under("norm2"), x, 1e-6)))
        x = x + linear(part.under("mlp.fc2"), y)
        block += 1
    x = layer_norm(state.under("fc_norm"), x[:, 1:].mean(dim=1), 1e-6)
    return linear(state.under("head"), x).sigmoid()


def convnext_block(part: Reader, x: Tensor) -> Tensor:
    c = x.shape[1]
    y = F.conv2d(x, part["conv_dw.weight"], part["conv_dw.bias"], 1, 3, 1, c).permute(0, 2, 3, 1)
    y = F.gelu(linear(part.under("mlp.fc1"), layer_norm(part.under("norm"), y, 1e-6)))
    response = y.norm(p=2, dim=(1, 2), keepdim=True)
    response = response / (response.mean(dim=-1, keepdim=True) + 1e-6)
    y = y + torch.addcmul(part["mlp.grn.bias"], part["mlp.grn.weight"], y * response)
    return x + linear(part.under("mlp.fc2"), y).permute(0, 3, 1, 2)


def channel_norm(part: Reader, x: Tensor) -> Tensor:
    return layer_norm(part, x.permute(0, 2, 3, 1), 1e-6).permute(0, 3, 1, 2)


def pyfeat(config: FrameConfig, state: Reader, x: Tensor) -> Tensor:
    part = state.under("backbone")
    x = F.conv2d(x, part["stem_0.weight"], part["stem_0.bias"], 4)
    x = channel_norm(part.under("stem_1"), x)
    for stage in range(4):
        layer = part.under(f"stages_{stage}")
        if layer.has("downsample"):
            x = channel_norm(layer.under("downsample.0"), x)
            x = F.conv2d(x, layer["downsample.1.weight"], layer["downsample.1.bias"], 2)
        block = 0
        while layer.has(f"blocks.{block}."):
            x = convnext_block(layer.under(f"blocks.{block}"), x)
            block += 1
    x = F.conv2d(x, state["proj.weight"])
    units = []
    for i in range(len(config.outputs)):
        head = state.under(f"afg.heads.{i}")
        y = F.relu(batch_norm(head.under("1"), F.conv2d(x, head["0.weight"])))
        units.append(y.mean(dim=(2, 3)))
    nodes = torch.stack(units, dim=1)
    unit = F.normalize(nodes, dim=-1)
    likeness = unit @ unit.transpose(1, 2)
    edges = torch.zeros_like(likeness).scatter_(-1, likeness.topk(5, dim=-1)[1], 1.0)
    edges = edges * (1 - torch.eye(len(config.outputs)))
    edges = edges / edges.sum(dim=-1, keepdim=True)
    graph = state.under("fgg")
    mixed = linear(graph.under("W_self"), nodes) + edges @ linear(graph.under("W"), nodes)
    return cosine(F.relu(mixed), state["sc.s"]).clamp(0, 1)


FORWARDS = {
    "megraphau": graph_network,
    "opengraphau": graph_network,
    "libreface": libreface,
    "fmae": vision_transformer,
    "pyfeat": pyfeat,
}


def plain_scores(config: FrameConfig, state: State, x: Tensor) -> tuple[Tensor, set[str]]:
    """Scores by the plain forward pass.

    Args:
        config: The configuration that belongs to the state dict.
        state: The authors' state dict, without `module.` prefixes.
        x: (F, 3, 224, 224) float32, normalised.

    Returns:
        (F, N) scores, and the names of the tensors that were used.
    """
    reader = Reader(state)
    return FORWARDS[config.network](config, reader, x), reader.used
