"""Formats of weights: foreign names to ours, one format a file; adding a file is registering it.

A format declares

- `FAMILY`, the file of `vitcnn.models` whose networks it holds;
- `matches(keys)`, whether a file with these keys has this format;
- `convert(raw, module)`, its arrays under our names ("params/..." and "batch_stats/..."); with None
  for the module, without what only its fields tell, so that their shapes can tell its fields;
- `PREPROCESS`, the preprocessing that the weights were trained with, as fields of
  `vitcnn.data.preprocess.Preprocess`; without mean and std if the keys do not determine them;

and, if the defaults do not fit,

- `FIELDS`, fields of the network that the library of the format sets and that change no array;
- `ASSUMED`, fields like those of `FIELDS` where the file may also be one of ours that has lost its
  sidecar; a network that differs is an error, which asks for the field;
- `UNSAID`, fields that change no array and that differ between the networks of the format, and the
  advice what to set: unless something beside the weights says the field, the caller has to;
- `UNSEEN`, further fields that no array shows, where only this format has networks that differ in
  them; see `families`;
- `fields(raw)`, fields of the network that the arrays of a file say, of those;
- `DOCUMENTED`, whether the library has one preprocessing for all its weights, so that `PREPROCESS`
  is no guess;
- `SIDECAR`, which JSON next to the weights is read: `sidecars.read_published` for timm's and
  Hugging Face's; the default is `sidecars.read_own`;
- `SIGNATURE`, keys that every file of the format has. An error about an unknown file names the
  formats with the most similar signatures.
"""
