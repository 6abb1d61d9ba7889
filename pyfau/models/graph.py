"""Graph networks for action units: ME-GraphAU and OpenGraphAU.

Luo et al., "Learning Multi-dimensional Edge Feature-based AU Relation Graph for Facial Action Unit
Recognition", IJCAI 2022. Every action unit is a node with its own features. Stage 1 connects a
node with its nearest neighbours. Stage 2 learns features for the edge between every two nodes.

Stage 2 is computed in another order than in the authors' code, with the same result. The authors
project 49 tokens for each of N^2 edges. But the tokens that they project are weighted means, by
attention, of 49 tokens that all nodes share. Each row of attention weights sums to 1, so the
projection of a mean is the mean of the projections, bias included. The shared tokens are therefore
projected once, and only attention weights are computed per edge.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyfau.models.backbones import make_backbone
from pyfau.models.config import GRID
from pyfau.models.frame_config import FrameConfig
from pyfau.models.frame_network import FrameNetwork
from pyfau.models.mdhr import LinearBlock
from pyfau.packed import project

TOKENS = GRID * GRID
EDGE_CLASSES = 4  # of ME-GraphAU's training: which of the two action units are present

# OpenGraphAU reads its left and right outputs from these nodes, in the order AU1 AU2 AU4 AU6 AU10
# AU12 AU14. AU12L and AU12R come from the node of AU11, not from that of AU12, as in the authors'
# code.
SIDE_NODES = (0, 1, 2, 4, 7, 8, 11)


def neighbour_count(nodes: int) -> int:
    """Number of neighbours of a node in stage 1; no checkpoint states it."""
    return 3 if nodes == 8 else 4


class NearestNeighbours(nn.Module):
    """Stage 1: each node gets a weighted sum of the nodes whose features resemble its own."""

    def __init__(self, nodes: int, width: int) -> None:
        super().__init__()
        self.neighbours = neighbour_count(nodes)
        # Registered first: `fold` multiplies a norm into the layer that is registered before it.
        self.norm = nn.BatchNorm1d(nodes)
        self.other, self.own = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, units: Tensor, tokens: Tensor) -> Tensor:
        """Tokens of the nodes (F, N, 49, C), shared tokens (F, 49, C) -> nodes (F, N, C)."""
        nodes = units.mean(dim=2)
        # In float32, because a tiny difference can change which nodes are neighbours.
        likeness = nodes.float() @ nodes.float().transpose(1, 2)
        least = likeness.topk(self.neighbours, dim=-1).values[..., -1:]
        edges = (likeness >= least).to(nodes.dtype)
        scale = edges.sum(dim=-1).rsqrt()
        weights = scale[:, :, None] * edges * scale[:, None, :]
        mixed = weights @ project(self.other, nodes) + project(self.own, nodes)
        return F.relu(nodes + self.norm(mixed))


class Attention(nn.Module):
    """Weights of single-head attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = (width // 2) ** -0.5
        self.query, self.key = nn.Linear(width, width // 2), nn.Linear(width, width // 2)
        self.value = nn.Linear(width, width)


class EdgeFeatures(nn.Module):
    """Features of the edge from each node to each node."""

    def __init__(self, nodes: int, width: int) -> None:
        super().__init__()
        # Registered first: `fold` multiplies a norm into the layer that is registered before it.
        self.norm = nn.BatchNorm1d(nodes * nodes)
        self.face, self.pair = Attention(width), Attention(width)
        self.projection = nn.Linear(width, width)

    def forward(self, units: Tensor, tokens: Tensor) -> Tensor:
        """Tokens of the nodes (F, N, 49, C), shared tokens (F, 49, C) -> (F, N * N, C).

        Edge i * N + j has the queries of node j and the keys and values of node i.
        """
        face, pair = self.face, self.pair
        weights = self.face_weights(units, tokens).flatten(1, 2)  # (F, N * 49, 49)
        values = project(face.value, tokens)
        queries, keys = project(pair.query, values), project(pair.key, values)
        edge_values = project(self.projection, project(pair.value, values))
        between = queries @ keys.transpose(1, 2) * pair.scale  # (F, 49, 49), of shared tokens
        logits = weights @ between @ weights.transpose(1, 2)  # (F, N * 49, N * 49)
        nodes = units.shape[1]
        logits = logits.unflatten(2, (nodes, TOKENS)).unflatten(1, (nodes, TOKENS))
        mean = logits.softmax(dim=-1).mean(dim=2)  # (F, j, i, 49): of the 49 queries
        shares = mean.transpose(1, 2) @ weights.unflatten(1, (nodes, TOKENS))  # (F, i, j, 49)
        edges: Tensor = self.norm(shares.flatten(1, 2) @ edge_values)
        return edges

    def face_weights(self, units: Tensor, tokens: Tensor) -> Tensor:
        """Attention of the tokens of each node to the shared tokens: (F, N, 49, 49)."""
        face = self.face
        keys = project(face.key, tokens)
        # u W_q^T k^T is taken as u (k W_q)^T: 49 columns instead of C / 2.
        combined = keys @ face.query.weight
        offset = keys @ face.query.bias
        logits = units.flatten(1, 2) @ combined.transpose(1, 2) + offset[:, None]
        weights: Tensor = (logits * face.scale).softmax(dim=-1)
        return weights.view(*units.shape[:3], -1)


class EdgeLayer(nn.Module):
    """One layer of message passing along edges that have features."""

    def __init__(self, nodes: int, width: int, relu_after_sum: bool) -> None:
        super().__init__()
        self.relu_after_sum = relu_after_sum
        # Registered first: `fold` multiplies a norm into the layer that is registered before it.
        self.norm = nn.BatchNorm1d(nodes)
        self.edge_norm = nn.BatchNorm1d(nodes * nodes)
        self.own = nn.Linear(width, width, bias=False)
        self.other = nn.Linear(width, width, bias=False)
        self.start = nn.Linear(width, width, bias=False)
        self.end = nn.Linear(width, width, bias=False)
        self.edge = nn.Linear(width, width, bias=False)

    def forward(self, nodes: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        """Nodes (F, N, C), edges (F, N * N, C) -> the same two."""
        count = nodes.shape[1]
        ends = project(self.start, nodes)[:, :, None] + project(self.end, nodes)[:, None]
        change = ends.flatten(1, 2) + project(self.edge, edges)
        edges = edges + F.relu(self.edge_norm(change))
        gates = edges.sigmoid().unflatten(1, (count, count)).softmax(dim=2)
        messages = (gates * project(self.other, nodes)[:, None]).mean(dim=2)
        update = self.norm(project(self.own, nodes) + messages)
        if self.relu_after_sum:
            return F.relu(nodes + update), edges
        return nodes + F.relu(update), edges


class LearnedEdges(nn.Module):
    """Stage 2: edge features and two layers of message passing."""

    def __init__(self, nodes: int, width: int, relu_after_sum: bool) -> None:
        super().__init__()
        self.features = EdgeFeatures(nodes, width)
        layers = [EdgeLayer(nodes, width, relu_after_sum) for _ in range(2)]
        self.layers = nn.ModuleList(layers)

    def forward(self, units: Tensor, tokens: Tensor) -> Tensor:
        """Tokens of the nodes (F, N, 49, C), shared tokens (F, 49, C) -> nodes (F, N, C)."""
        return self.nodes_and_edges(units, tokens)[0]

    def nodes_and_edges(self, units: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, with the features of the edges (F, N * N, C) as well."""
        nodes, edges = units.mean(dim=2), self.features(units, tokens)
        for layer in self.layers:
            nodes, edges = layer(nodes, edges)
        return nodes, edges


class GraphNetwork(FrameNetwork):
    """ME-GraphAU and OpenGraphAU, stage 1 and stage 2.

    `config.network` is "megraphau" or "opengraphau", `config.variant` is "stage1" or "stage2".
    """

    heavy_part = "backbone"
    output_nodes: Tensor

    def __init__(self, config: FrameConfig) -> None:
        super().__init__(config)
        sided = sum(output.side != "" for output in config.outputs)
        self.nodes = len(config.outputs) - sided
        self.backbone = make_backbone(config.backbone)
        channels = self.backbone.static_channels
        width = channels // (4 if config.backbone.startswith("resnet") else 2)
        self.tokens = LinearBlock(channels, width)
        self.units = LinearBlock(width, self.nodes * width)  # one block for each node, end to end
        # The projects differ in where the last ReLU of a layer is.
        is_megraphau = config.network == "megraphau"
        self.graph: NearestNeighbours | LearnedEdges
        if config.variant == "stage1":
            self.graph = NearestNeighbours(self.nodes, width)
        else:
            self.graph = LearnedEdges(self.nodes, width, relu_after_sum=is_megraphau)
        self.classifier = nn.Parameter(torch.zeros(len(config.outputs), width))
        if is_megraphau and config.variant == "stage2":
            self.edge_classes = nn.Linear(width, EDGE_CLASSES)
        nodes = list(range(self.nodes))
        if sided:
            nodes += [node for node in SIDE_NODES for _ in ("left", "right")]
        self.register_buffer("output_nodes", torch.tensor(nodes), persistent=False)

    def score_frames(self, x: Tensor) -> Tensor:
        """See `FrameNetwork.score_frames`. A score is the cosine of two non-negative vectors."""
        nodes = self.graph(*self.describe(x))[:, self.output_nodes]
        classes = F.normalize(F.relu(self.classifier), dim=-1)
        return (F.normalize(nodes, dim=-1) * classes).sum(dim=-1)

    def classify_edges(self, x: Tensor) -> Tensor:
        """Logits over the classes of edges, which only ME-GraphAU of stage 2 has.

        Args:
            x: (F, 3, S, S) float32, normalised.

        Returns:
            (F, N * N, 4), edge i * N + j from node i to node j.
        """
        assert isinstance(self.graph, LearnedEdges)
        logits: Tensor = self.edge_classes(self.graph.nodes_and_edges(*self.describe(x))[1])
        return logits

    def packable(self) -> tuple[nn.Module, list[nn.Module]]:
        """See `FrameNetwork.packable`. `EdgeFeatures` reads the weights of its layers."""
        parts: list[nn.Module] = [self.tokens, self.units]
        if isinstance(self.graph, LearnedEdges):
            parts.append(self.graph.layers)
        return self.get_submodule("backbone"), parts

    def describe(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of each node (F, N, 49, C) and of the face (F, 49, C)."""
        tokens = self.tokens(self.backbone(x)[1])
        units = self.units(tokens).unflatten(2, (self.nodes, -1)).transpose(1, 2)
        return units, tokens
