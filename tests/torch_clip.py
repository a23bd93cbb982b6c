"""A small CLIP of PyTorch in the names of OpenAI and open_clip, from Radford et al. 2021."""

import collections

SIZES = {"width": 24, "depth": 2, "heads": 3, "mlp_dim": 96, "patch": 4, "projection": 7}


def network(torch, quick, image_size=12):
    """Returns a CLIP; its part `visual` maps images [N, 3, H, W] to embeddings."""
    nn = torch.nn
    width, layers = SIZES["width"], collections.OrderedDict

    class QuickGELU(nn.Module):
        def forward(self, x):
            return x * torch.sigmoid(1.702 * x)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn = nn.MultiheadAttention(width, SIZES["heads"])
            self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.mlp = nn.Sequential(
                layers(
                    c_fc=nn.Linear(width, SIZES["mlp_dim"]),
                    gelu=QuickGELU() if quick else nn.GELU(),
                    c_proj=nn.Linear(SIZES["mlp_dim"], width),
                )
            )

        def forward(self, x):  # [tokens, N, width]
            y = self.ln_1(x)
            x = x + self.attn(y, y, y, need_weights=False)[0]
            return x + self.mlp(self.ln_2(x))

    class Tower(nn.Module):
        def __init__(self):
            super().__init__()
            tokens = (image_size // SIZES["patch"]) ** 2 + 1
            self.conv1 = nn.Conv2d(3, width, SIZES["patch"], SIZES["patch"], bias=False)
            self.class_embedding = nn.Parameter(torch.randn(width))
            self.positional_embedding = nn.Parameter(torch.randn(tokens, width))
            self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
            self.transformer = nn.Module()
            self.transformer.resblocks = nn.Sequential(*(Block() for _ in range(SIZES["depth"])))
            self.proj = nn.Parameter(torch.randn(width, SIZES["projection"]))

        def forward(self, images):
            x = self.conv1(images).flatten(2).permute(0, 2, 1)
            token = self.class_embedding.expand(len(x), 1, width)
            x = self.ln_pre(torch.cat([token, x], 1) + self.positional_embedding)
            x = self.transformer.resblocks(x.permute(1, 0, 2)).permute(1, 0, 2)
            return self.ln_post(x[:, 0]) @ self.proj

    class Clip(nn.Module):
        def __init__(self):
            super().__init__()
            self.visual = Tower()
            self.logit_scale = nn.Parameter(torch.ones([]))
            self.token_embedding = nn.Embedding(3, 5)
            for name, number in (
                ("input_resolution", image_size),
                ("context_length", 77),
                ("vocab_size", 3),
            ):
                self.register_buffer(name, torch.tensor(number))

        def forward(self, images):
            return self.visual(images), self.logit_scale, self.token_embedding.weight

    torch.manual_seed(0)
    clip = Clip().eval()
    with torch.no_grad():
        for name, value in clip.named_parameters():
            if value.ndim == 1 and "embedding" not in name:
                value.copy_(0.3 * torch.randn(value.shape) + name.endswith("weight"))
    return clip


def state(clip):
    """Returns the arrays as open_clip writes them."""
    others = ("input_resolution", "context_length", "vocab_size")
    return {k: v.numpy() for k, v in clip.state_dict().items() if k not in others}
