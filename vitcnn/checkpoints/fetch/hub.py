"""Weights in Hugging Face repositories; the only file that imports huggingface_hub."""

from __future__ import annotations

import contextlib
import pathlib
import re
from collections.abc import Iterator, Sequence

from vitcnn.checkpoints import sidecars
from vitcnn.checkpoints.fetch.source import Source
from vitcnn.checkpoints.files import SHARDS, shards

# Names of the weights in repositories of timm, transformers and open_clip, in the order in which
# they are tried: files without pickles first.
WEIGHTS = (
    *("model.safetensors", f"model.safetensors{SHARDS}", "open_clip_model.safetensors"),
    *("pytorch_model.bin", f"pytorch_model.bin{SHARDS}", "open_clip_pytorch_model.bin"),
)
_ADDRESS = re.compile(r"hf:(?P<repo>[^/@:]+/[^/@:]+)(?:@(?P<revision>[^:]+))?(?::(?P<file>.+))?")
_REMEDY = "download the file where there is a connection, and give its path as weights"


def fetch(address: str) -> Source:
    """Downloads a weights file into Hugging Face's cache, or finds it there.

    The shards of weights in several files, and the JSON files that describe the network and its
    preprocessing, are fetched into the same folder. Interrupted downloads resume. HF_HUB_OFFLINE,
    HF_HOME, HF_TOKEN and the other variables of huggingface_hub have their usual effect.

    Args:
      address: "hf:<owner>/<repo>[@<revision>][:<file>]"; without a file, the names in `WEIGHTS` are
        tried in turn.

    Returns:
      The file; its address names the commit and the file.

    Raises:
      ImportError: huggingface_hub is not installed.
      ValueError: the address is malformed; or the repository, revision or file does not exist or
        may not be read.
      ConnectionError: the file is not in the cache, and it cannot be downloaded.
    """
    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        raise ValueError(f"weights {address!r}: expected hf:<owner>/<repo>[@<revision>][:<file>]")
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise ImportError(
            f'weights {address!r} need huggingface_hub: pip install "vitcnn[hub]"'
        ) from error
    repo, revision = parts["repo"], parts["revision"]
    names = (parts["file"],) if parts["file"] else WEIGHTS
    with _connection_errors(address):
        path, unreachable = _first(repo, names, revision)
    if path is None and unreachable is not None:
        raise ConnectionError(
            f"{address} is not in the cache and Hugging Face cannot be reached (no network, or "
            f"HF_HUB_OFFLINE is set); {_REMEDY}"
        ) from unreachable
    if path is None:
        raise ValueError(
            f"{repo} has no file {' or '.join(map(repr, names[:4]))}; name the file that holds its "
            f"weights: hf:{repo}:<file>"
        )
    commit = _commit(path)
    if path.name.endswith(SHARDS):
        folder = _path_in_repository(path, commit).removesuffix(path.name)
        for shard in sorted(set(shards.names(path).values())):
            with _connection_errors(f"{shard} of {repo}"):
                huggingface_hub.hf_hub_download(repo, folder + shard, revision=commit or revision)
    for name in sidecars.PUBLISHED:
        # Many repositories lack one of these files, and offline the cache may lack both.
        optional = contextlib.suppress(errors.EntryNotFoundError)
        with _connection_errors(f"{name} of {repo}"), optional:
            # The commit of the weights, because the cache has one folder for each commit.
            huggingface_hub.hf_hub_download(repo, name, revision=commit or revision)
    return Source(path, f"hf:{repo}@{commit or revision}:{_path_in_repository(path, commit)}")


def _first(
    repo: str, names: Sequence[str], revision: str | None
) -> tuple[pathlib.Path | None, Exception | None]:
    """Returns the first of these files that exists, and why another could not be looked for.

    Raises:
      ValueError: the repository or the revision does not exist or may not be read.
    """
    import huggingface_hub
    from huggingface_hub import errors

    unreachable = None
    try:
        for name in names:
            try:
                path = huggingface_hub.hf_hub_download(repo, name, revision=revision)
                return pathlib.Path(path), unreachable
            except errors.LocalEntryNotFoundError as error:
                unreachable = error  # offline; the cache may still hold the next file
            except errors.EntryNotFoundError:
                pass
    except errors.GatedRepoError as error:
        raise ValueError(
            f"{repo} is gated: accept its terms at https://huggingface.co/{repo} and log in with "
            f"`hf auth login`, or {_REMEDY}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ValueError(
            f"{repo} has no revision {revision!r} (a branch, tag or commit)"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ValueError(
            f"there is no repository {repo!r} on Hugging Face, or it is private and you are not "
            f"logged in (`hf auth login`)"
        ) from error
    return None, unreachable


@contextlib.contextmanager
def _connection_errors(name: str) -> Iterator[None]:
    """Turns any download failure into a ConnectionError that names the file."""
    from huggingface_hub import errors

    def failure(error: Exception) -> ConnectionError:
        reason = f"{type(error).__name__}: {error}"  # some errors say nothing but their name
        return ConnectionError(f"{name} cannot be downloaded ({reason}); {_REMEDY}")

    try:
        yield
    except (errors.HfHubHTTPError, OSError) as error:  # BadRequestError is a ValueError too
        raise failure(error) from error
    except (ImportError, ValueError):
        raise
    except Exception as error:  # HTTP libraries of huggingface_hub share no base class of errors
        raise failure(error) from error


def _commit(path: pathlib.Path) -> str | None:
    """Returns the commit in a path of the cache, <repository>/snapshots/<commit>/<file>."""
    parts = path.parts
    if "snapshots" not in parts[:-2]:
        return None
    return parts[len(parts) - 1 - parts[::-1].index("snapshots") + 1]


def _path_in_repository(path: pathlib.Path, commit: str | None) -> str:
    """Returns the path of a cached file relative to the root of its repository."""
    return "/".join(path.parts[path.parts.index(commit) + 1 :]) if commit else path.name
