"""Cases of every family of layers in `torch.nn`."""

from functools import partial

import torch
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

from pbt.pytorch import dropout, optimizer
from tests.pytorch.vectorized.zoo.cases import Net, add, examples, layer, net, refused

IMAGE, ROW, CUBE = (2, 6, 6), (2, 9), (2, 4, 4, 4)

layer("linear", lambda: nn.Linear(6, 5), sample=True)
layer("linear_raw", lambda: nn.Linear(6, 5), raw=True)
layer("linear_no_bias", lambda: nn.Linear(6, 5, bias=False))
layer("linear_3d", lambda: nn.Linear(4, 5), (3, 4))
layer("identity", nn.Identity)
layer("flatten_unflatten", lambda: nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Flatten(1, 2)))
for name, make, shape in (
    ("conv1d", lambda: nn.Conv1d(2, 3, 3, padding=1), ROW),
    ("conv1d_dilated", lambda: nn.Conv1d(2, 4, 2, dilation=2, groups=2, bias=False), ROW),
    ("conv1d_same", lambda: nn.Conv1d(2, 3, 3, padding="same"), ROW),
    ("conv2d", lambda: nn.Conv2d(2, 3, 3, stride=2), IMAGE),
    ("conv2d_groups", lambda: nn.Conv2d(2, 4, 3, groups=2), IMAGE),
    ("conv2d_circular", lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), IMAGE),
    ("conv2d_reflect", lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), IMAGE),
    ("conv3d", lambda: nn.Conv3d(2, 3, 2), CUBE),
    ("conv_transpose1d", lambda: nn.ConvTranspose1d(2, 3, 3, stride=2, output_padding=1), ROW),
    ("conv_transpose2d", lambda: nn.ConvTranspose2d(2, 3, 3, stride=2), IMAGE),
    ("conv_transpose2d_groups", lambda: nn.ConvTranspose2d(2, 4, 2, groups=2, bias=False), IMAGE),
    ("conv_transpose3d", lambda: nn.ConvTranspose3d(2, 3, 2), CUBE),
    ("batch_norm1d", lambda: nn.BatchNorm1d(6), (6,)),
    ("batch_norm1d_3d", lambda: nn.BatchNorm1d(2), ROW),
    ("batch_norm2d", lambda: nn.BatchNorm2d(2), IMAGE),
    ("batch_norm3d", lambda: nn.BatchNorm3d(2), CUBE),
    ("batch_norm_plain", lambda: nn.BatchNorm1d(6, affine=False), (6,)),
    ("batch_norm_no_statistics", lambda: nn.BatchNorm1d(6, track_running_stats=False), (6,)),
    ("layer_norm", lambda: nn.LayerNorm(6), (6,)),
    ("layer_norm_2d", lambda: nn.LayerNorm((6, 6), bias=False), IMAGE),
    ("group_norm", lambda: nn.GroupNorm(2, 4), (4, 5)),
    ("instance_norm1d", lambda: nn.InstanceNorm1d(2), ROW),
    ("instance_norm2d_affine", lambda: nn.InstanceNorm2d(2, affine=True), IMAGE),
    ("instance_norm2d_statistics", lambda: nn.InstanceNorm2d(2, affine=True, track_running_stats=True), IMAGE),
    ("rms_norm", lambda: nn.RMSNorm(6), (6,)),
    ("local_response_norm", lambda: nn.LocalResponseNorm(2), IMAGE),
    ("cross_map_lrn", lambda: nn.LocalResponseNorm(3, alpha=0.1, k=2.0), ROW),
    ("max_pool1d", lambda: nn.MaxPool1d(2), ROW),
    ("max_pool2d", lambda: nn.MaxPool2d(2, padding=1), IMAGE),
    ("max_pool2d_indices", lambda: nn.MaxPool2d(2, return_indices=True), IMAGE),
    ("max_pool3d", lambda: nn.MaxPool3d(2), CUBE),
    ("avg_pool1d", lambda: nn.AvgPool1d(2), ROW),
    ("avg_pool2d", lambda: nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False), IMAGE),
    ("avg_pool3d", lambda: nn.AvgPool3d(2), CUBE),
    ("adaptive_avg_pool1d", lambda: nn.AdaptiveAvgPool1d(4), ROW),
    ("adaptive_avg_pool2d", lambda: nn.AdaptiveAvgPool2d((3, None)), IMAGE),
    ("adaptive_avg_pool3d", lambda: nn.AdaptiveAvgPool3d(2), CUBE),
    ("adaptive_max_pool1d", lambda: nn.AdaptiveMaxPool1d(4), ROW),
    ("adaptive_max_pool2d", lambda: nn.AdaptiveMaxPool2d(3), IMAGE),
    ("adaptive_max_pool3d", lambda: nn.AdaptiveMaxPool3d(2), CUBE),
    ("lp_pool1d", lambda: nn.LPPool1d(2, 3), ROW),
    ("lp_pool2d", lambda: nn.LPPool2d(2, 2), IMAGE),
    ("lp_pool3d", lambda: nn.LPPool3d(2, 2), CUBE),
    ("pad_constant", lambda: nn.ConstantPad2d((1, 0, 2, 1), 0.5), IMAGE),
    ("pad_zero", lambda: nn.ZeroPad1d(1), ROW),
    ("pad_reflection", lambda: nn.ReflectionPad2d(1), IMAGE),
    ("pad_reflection3d", lambda: nn.ReflectionPad3d(1), CUBE),
    ("pad_replication", lambda: nn.ReplicationPad2d(2), IMAGE),
    ("pad_replication1d", lambda: nn.ReplicationPad1d((0, 2)), ROW),
    ("pad_circular", lambda: nn.CircularPad1d(2), ROW),
    ("pixel_shuffle", lambda: nn.PixelShuffle(2), (4, 3, 3)),
    ("pixel_unshuffle", lambda: nn.PixelUnshuffle(2), IMAGE),
    ("channel_shuffle", lambda: nn.ChannelShuffle(2), (4, 3, 3)),
    ("upsample_nearest", lambda: nn.Upsample(scale_factor=2), IMAGE),
    ("upsample_linear", lambda: nn.Upsample(13, mode="linear"), ROW),
    ("upsample_bilinear", lambda: nn.Upsample(scale_factor=1.5, mode="bilinear", align_corners=True), IMAGE),
    ("upsample_bicubic", lambda: nn.Upsample(9, mode="bicubic"), IMAGE),
    ("upsample_trilinear", lambda: nn.Upsample(scale_factor=2, mode="trilinear"), CUBE),
    ("unfold", lambda: nn.Unfold(3, stride=2), IMAGE),
    ("fold", lambda: nn.Fold((4, 4), 2, stride=2), (4, 4)),
    ("softmax", lambda: nn.Softmax(dim=1), (6,)),
    ("log_softmax", lambda: nn.LogSoftmax(dim=-1), (6,)),
    ("softmin", lambda: nn.Softmin(dim=1), (6,)),
    ("softmax2d", nn.Softmax2d, IMAGE),
):
    layer(
        name, make, shape, sample=name in {"conv2d", "batch_norm1d", "instance_norm2d_statistics", "rms_norm", "fold"}
    )

for kind in (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.LogSigmoid,
    nn.Tanh, nn.Tanhshrink, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Hardshrink, nn.Softshrink, nn.Softplus,
    nn.Softsign, nn.PReLU,
):  # fmt: skip
    layer(f"activation_{kind.__name__}", kind, sample=kind is nn.PReLU)
layer("activation_GLU", nn.GLU)
layer("activation_Threshold", lambda: nn.Threshold(0.1, 0.2))
layer("activation_PReLU_channels", lambda: nn.PReLU(2), IMAGE)
layer("activation_GELU_tanh", lambda: nn.GELU("tanh"))
layer("activation_in_place", lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True)))
layer("activation_in_place_twice",
      lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.ELU(inplace=True)),
      word=refused("by any executor", "modified by an inplace operation", remedy=False))  # fmt: skip

layer("batch_norm_cumulative", lambda: nn.BatchNorm1d(6, momentum=None), word=refused("'layer' (BatchNorm1d)"))
layer("sync_batch_norm", lambda: nn.SyncBatchNorm(6))
layer("embedding", lambda: nn.Embedding(7, 4), (5,), words=7, sample=True)
layer("embedding_padding", lambda: nn.Embedding(7, 4, padding_idx=0), (5,), words=7)
layer("embedding_scaled", lambda: nn.Embedding(7, 4, scale_grad_by_freq=True), (5,), words=7)
layer("embedding_max_norm", lambda: nn.Embedding(7, 4, max_norm=1.0), (5,), words=7)
layer("embedding_sparse", lambda: nn.Embedding(7, 4, sparse=True), (5,), words=7, word=refused("sparse"),
      optimizer=partial(torch.optim.SGD, lr=0.1))  # fmt: skip
for mode in ("sum", "mean", "max"):
    layer(f"embedding_bag_{mode}", partial(nn.EmbeddingBag, 7, 4, mode=mode), (5,), words=7)
for kind in (nn.LSTM, nn.GRU, nn.RNN):
    word = {nn.LSTM: "aten::lstm", nn.GRU: "aten::gru", nn.RNN: "aten::rnn_tanh"}[kind]
    layer(f"recurrent_{kind.__name__}", partial(kind, 4, 3, batch_first=True), (5, 4), word=refused(word),
          sample=kind is nn.LSTM)  # fmt: skip
layer("recurrent_layers", lambda: nn.GRU(4, 3, 2, bidirectional=True, batch_first=True), (5, 4),
      word=refused("aten::gru"))  # fmt: skip


@net(cell=lambda: nn.GRUCell(6, 5), head=lambda: nn.Linear(5, 3))
def gru_cell(m, x):
    h = x.new_zeros(len(x), 5)
    for _ in range(3):
        h = m.cell(x, h)
    return m.head(h)


@net(refused("aten::lstm_cell", "'cell' (LSTMCell)"), cell=lambda: nn.LSTMCell(6, 5), head=lambda: nn.Linear(5, 3))
def lstm_cell(m, x):
    state = None
    for _ in range(2):
        state = m.cell(x, state)
    return m.head(state[0])


@net(cell=lambda: nn.RNNCell(6, 5, nonlinearity="relu"), head=lambda: nn.Linear(5, 3))
def rnn_cell(m, x):
    return m.head(m.cell(x, m.cell(x)))


@net(pair=lambda: nn.Bilinear(6, 6, 4), head=lambda: nn.Linear(4, 3))
def bilinear(m, x):
    return m.head(m.pair(x, x.flip(1)))


@net(one=lambda: nn.Linear(6, 4), near=lambda: nn.CosineSimilarity(dim=1), far=nn.PairwiseDistance,
     head=lambda: nn.Linear(6, 3))  # fmt: skip
def similarities(m, x):
    a, b = m.one(x), m.one(x * 2)
    return m.head(torch.cat([a, m.near(a, b + 1)[:, None], m.far(a, b)[:, None]], 1))


def encoder(p=0.0, **options):
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, p, batch_first=True, **options), 2)


layer("transformer_encoder", encoder, (5, 4), sample=True)
layer("transformer_encoder_norm_first", partial(encoder, norm_first=True, activation="gelu"), (5, 4))


@net(data=partial(examples, (5, 4)), attend=lambda: nn.MultiheadAttention(4, 2, batch_first=True),
     head=lambda: nn.Linear(4, 3))  # fmt: skip
def attention_weights(m, x):
    y, weights = m.attend(x, x, x, average_attn_weights=False)
    return m.head((y + weights.sum((1, 3))[..., None]).mean(1))


@net(data=partial(examples, (5, 4)), attend=lambda: nn.MultiheadAttention(4, 2, batch_first=True, kdim=3, vdim=2),
     head=lambda: nn.Linear(4, 3))  # fmt: skip
def attention_across(m, x):
    return m.head(m.attend(x, x[..., :3], x[..., :2], need_weights=False)[0].mean(1))


@net(data=partial(examples, (5, 4)),
     attend=lambda: nn.MultiheadAttention(4, 2, batch_first=True, add_bias_kv=True, add_zero_attn=True),
     head=lambda: nn.Linear(4, 3))  # fmt: skip
def attention_bias(m, x):
    return m.head(m.attend(x, x, x, need_weights=False)[0].mean(1))


@net(data=partial(examples, (5, 4)), attend=lambda: nn.MultiheadAttention(4, 2, batch_first=True),
     head=lambda: nn.Linear(4, 3))  # fmt: skip
def attention_padding(m, x):
    mask = torch.tensor([[False, False, False, False, True]]).expand(len(x), 5)
    return m.head(m.attend(x, x, x, key_padding_mask=mask, need_weights=False)[0].mean(1))


@net(data=partial(examples, (5, 4)),
     decoder=lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(4, 2, 8, 0.0, batch_first=True), 1),
     head=lambda: nn.Linear(4, 3))  # fmt: skip
def transformer_decoder(m, x):
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    return m.head(m.decoder(x, x * 0.5, tgt_mask=mask, tgt_is_causal=True).mean(1))


@net(data=partial(examples, (5, 4)), whole=lambda: nn.Transformer(4, 2, 1, 1, 8, 0.0, batch_first=True),
     head=lambda: nn.Linear(4, 3))  # fmt: skip
def transformer_whole(m, x):
    return m.head(m.whole(x, x[:, :3]).mean(1))


@net(refused("_nested_tensor_from_mask"), data=partial(examples, (6,), kind=11), sample=True,
     words=lambda: nn.Embedding(11, 8, padding_idx=0),
     encoder=lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), 1),
     head=lambda: nn.Linear(8, 3))  # fmt: skip
def encoder_with_padding_in_evaluation(m, x):
    return m.head(m.encoder(m.words(x), src_key_padding_mask=x == 0).mean(1))


DROPPED = {"bind": {"lr": optimizer("lr"), "p": dropout()},
           "hparams": ({"lr": 0.05, "p": 0.0}, {"lr": 0.1, "p": 0.3}, {"lr": 0.02, "p": 0.6})}  # fmt: skip
for name, make, shape in (
    ("dropout", nn.Dropout, (6,)),
    ("dropout1d", nn.Dropout1d, ROW),
    ("dropout2d", nn.Dropout2d, IMAGE),
    ("dropout3d", nn.Dropout3d, CUBE),
):
    layer(name, make, shape, **DROPPED, sample=name == "dropout2d")
layer("dropout_after_relu", lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Dropout(0.2)), **DROPPED)
layer("weight_norm_old", lambda: weight_norm(nn.Linear(6, 5)), word=refused("'layer.weight'"))
layer("weight_norm", lambda: parametrizations.weight_norm(nn.Linear(6, 5)), sample=True)
layer("spectral_norm", lambda: parametrizations.spectral_norm(nn.Linear(6, 5)), word=refused("_SpectralNorm"))
layer("spectral_norm_old", lambda: nn.utils.spectral_norm(nn.Linear(6, 5)), word=refused("'layer.weight'"))
layer("orthogonal", lambda: parametrizations.orthogonal(nn.Linear(6, 5)))
for dims, kind, shape in ((6, nn.Linear, (6,)), (2, nn.Conv1d, ROW)):
    layer(f"complex_{kind.__name__}",
          partial(lambda kind, dims: Net(lambda m, x: m.turn(torch.complex(x, x * 0.5)).abs(),
                  {"turn": partial(kind, dims, 3, *([] if kind is nn.Linear else [2]), dtype=torch.complex128)}),
                  kind, dims), shape, sample=kind is nn.Linear)  # fmt: skip


@net(data=partial(examples, (6,), kind=torch.complex128), turn=lambda: nn.Linear(6, 4, dtype=torch.complex128),
     head=lambda: nn.Linear(4, 3))  # fmt: skip
def complex_inputs(m, z):
    return m.head(m.turn(z).tanh().real)


@net(adaptive=lambda: nn.AdaptiveAvgPool2d(1), data=partial(examples, IMAGE), conv=lambda: nn.Conv2d(2, 4, 3),
     head=lambda: nn.Linear(4, 3))  # fmt: skip
def pooled_image(m, x):
    return m.head(m.adaptive(m.conv(x)).flatten(1))


@net(data=partial(examples, IMAGE), pool=lambda: nn.MaxPool2d(2, return_indices=True),
     back=lambda: nn.MaxUnpool2d(2), gain=lambda: nn.Parameter(torch.ones(2, 1, 1)),
     head=lambda: nn.Linear(72, 3))  # fmt: skip
def max_unpool(m, x):
    return m.head(m.back(*m.pool(x * m.gain)).flatten(1))


def chain(*layers):
    return nn.Sequential(*(make() for make in layers))


add("chain_of_plain_layers", partial(chain, partial(nn.Conv2d, 2, 3, 3), partial(nn.BatchNorm2d, 3), nn.ReLU,
    partial(nn.MaxPool2d, 2), nn.Flatten, partial(nn.Linear, 12, 3)), data=partial(examples, IMAGE),
    sample=True)  # fmt: skip
add("chain_in_chain", partial(chain, partial(chain, partial(nn.Linear, 6, 5), nn.Tanh), partial(nn.Linear, 5, 3)))
