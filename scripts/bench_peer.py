"""The networks of bench_cka.py in torch, for its peer; the modules to compare have `tap`."""


def torch_net(torch, fields):
    """Returns the torch twin of a linen network: the same layers and taps, other random weights."""
    nn, relu = torch.nn, torch.nn.functional.relu

    def tap(module):
        module.tap = True
        return module

    class Attention(nn.Module):
        def __init__(self, width, heads):
            super().__init__()
            self.heads = heads
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

        def forward(self, x):
            n, tokens, width = x.shape
            qkv = self.qkv(x).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            x = nn.functional.scaled_dot_product_attention(*qkv)
            return self.out(x.transpose(1, 2).reshape(n, tokens, width))

    class Block(nn.Module):
        def __init__(self, width, heads, hidden):
            super().__init__()
            self.ln1, self.attn = tap(nn.LayerNorm(width)), tap(Attention(width, heads))
            self.ln2, self.mlp = tap(nn.LayerNorm(width)), tap(nn.Linear(hidden, width))
            gelu = nn.GELU(approximate="tanh")
            self.hidden = tap(nn.Sequential(nn.Linear(width, hidden), gelu))

        def forward(self, x):
            x = x + self.attn(self.ln1(x))
            return x + self.mlp(self.hidden(self.ln2(x)))

    class Embed(nn.Module):
        def __init__(self, tokens, width, patch):
            super().__init__()
            self.patches = nn.Conv2d(3, width, patch, patch)
            self.token = nn.Parameter(torch.randn(1, 1, width) / 50)
            self.position = nn.Parameter(torch.randn(1, tokens, width) / 50)

        def forward(self, x):
            x = self.patches(x).flatten(2).transpose(1, 2)
            return torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position

    class Read(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def forward(self, x):
            return self.function(x)

    class Unit(nn.Module):
        def __init__(self, before, width, stride, bottleneck):
            super().__init__()
            after = width * (4 if bottleneck else 1)
            kernels = (1, 3, 1) if bottleneck else (3, 3)
            widths = [before, *[width] * (len(kernels) - 1), after]
            self.branch = nn.Sequential()
            for i, kernel in enumerate(kernels):
                step = stride if i == (1 if bottleneck else 0) else 1
                self.branch += conv_norm(*widths[i : i + 2], kernel, step, i + 1 < len(kernels))
            projects = before != after or stride != 1
            self.shortcut = conv_norm(before, after, 1, stride, False) if projects else None

        def forward(self, x):
            return relu(self.branch(x) + (x if self.shortcut is None else self.shortcut(x)))

    def conv_norm(before, after, kernel, stride, activate):
        conv = nn.Conv2d(before, after, kernel, stride, (kernel - 1) // 2, bias=False)
        norm = nn.BatchNorm2d(after)
        return nn.Sequential(tap(conv), tap(nn.Sequential(norm, nn.ReLU()) if activate else norm))

    torch.manual_seed(0)
    if hasattr(fields, "patch"):
        width, tokens = fields.width, 1 + (fields.image_size // fields.patch) ** 2
        blocks = [tap(Block(width, fields.heads, fields.mlp_dim)) for _ in range(fields.depth)]
        pooled = tap(Read(lambda x: x[:, 0]))
        head = [tap(nn.LayerNorm(width)), pooled, tap(nn.Linear(width, fields.num_classes))]
        return nn.Sequential(tap(Embed(tokens, width, fields.patch)), *blocks, *head)
    width = fields.widths[0]
    net = conv_norm(3, width, fields.stem_kernel, fields.stem_stride, True)
    if fields.stem_pool:
        net.append(tap(nn.MaxPool2d(3, 2, 1)))
    for stage, (units, base) in enumerate(zip(fields.units, fields.widths, strict=True)):
        for i in range(units):
            stride = 2 if stage and i == 0 else 1
            net.append(tap(Unit(width, base, stride, fields.bottleneck)))
            width = base * (4 if fields.bottleneck else 1)
    pooled = tap(Read(lambda x: x.mean((2, 3))))
    return nn.Sequential(net, pooled, tap(nn.Linear(width, fields.num_classes)))
