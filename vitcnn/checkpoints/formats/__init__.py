"""Formats of weights: foreign names to ours, one format a file; adding a file is registering it.

A format has `matches(keys)`, whether a checkpoint with these keys is of this format;
`convert(raw, module)`, its arrays under our names ("params/..." and "batch_stats/..."); `FAMILY`,
the file in `vitcnn.models` that they fit; and `PREPROCESS`, the preprocessing that the weights were
trained with, as fields of `vitcnn.data.preprocess.Preprocess` (without mean and std where the keys
do not tell). It may have `FIELDS`, fields of the network that the library of the format sets and
that change no array, and `SIGNATURE`, keys that it always has, by which a file of no known format
is likened to it.
"""
