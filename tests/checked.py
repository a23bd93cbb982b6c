"""The type checker of the import hook: beartype, which takes an int where a float is annotated."""

import beartype

typechecker = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
