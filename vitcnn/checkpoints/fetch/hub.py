"""Weights of Hugging Face repositories: the only file that imports huggingface_hub."""

from __future__ import annotations

import contextlib
import pathlib
import re
from collections.abc import Iterator, Sequence

from vitcnn.checkpoints import sidecar

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_SOURCE = re.compile(r"hf:(?P<repo>[^/@:]+/[^/@:]+)(?:@(?P<revision>[^:]+))?(?::(?P<file>.+))?")
_ELSE = "download the file where there is a connection, and give its path as weights"


def fetch(source: str) -> tuple[pathlib.Path, str]:
    """Downloads a file of weights into Hugging Face's cache, or finds it there.

    The JSON files that say how images are preprocessed come to lie beside it. Downloads go on where
    they stopped; HF_HUB_OFFLINE, HF_HOME, HF_TOKEN and the like work as they do everywhere.

    Args:
      source: "hf:<owner>/<repo>[@<revision>][:<file>]"; without a file, the usual ones are tried.

    Returns:
      (path, source with the commit that the revision was and the file).

    Raises:
      ImportError: huggingface_hub is not installed.
      ValueError: the source is not written so, or there is no such repository, revision or file, or
        no permission to read it.
      ConnectionError: the file is not in the cache and cannot be downloaded, or the connection
        breaks.
    """
    parts = _SOURCE.fullmatch(source)
    if parts is None:
        raise ValueError(f"weights {source!r}: expected hf:<owner>/<repo>[@<revision>][:<file>]")
    try:
        import huggingface_hub as hub
        from huggingface_hub import errors
    except ImportError as error:
        raise ImportError(
            f'weights {source!r} need huggingface_hub: pip install "vitcnn[hub]"'
        ) from error
    repo, revision = parts["repo"], parts["revision"]
    names = (parts["file"],) if parts["file"] else WEIGHTS
    with _named(source):
        found, unreachable = _first(repo, names, revision)
    if found is None and unreachable is not None:
        raise ConnectionError(
            f"{source} is not in the cache and Hugging Face cannot be reached (no network, or "
            f"HF_HUB_OFFLINE is set); {_ELSE}"
        ) from unreachable
    if found is None:
        raise ValueError(
            f"{repo} has no file {' or '.join(map(repr, names))}; name the file of its weights: "
            f"hf:{repo}:<file>"
        )
    commit = _commit(found)
    for name in sidecar.FILES:  # of the same commit, so that they lie in the same folder
        # It may have none, or be offline and not have fetched it.
        absent = contextlib.suppress(errors.EntryNotFoundError)
        with _named(f"{name} of {repo}"), absent:
            hub.hf_hub_download(repo, name, revision=commit or revision)
    return found, f"hf:{repo}@{commit or revision}:{_inside(found, commit)}"


def _first(
    repo: str, names: Sequence[str], revision: str | None
) -> tuple[pathlib.Path | None, Exception | None]:
    """Returns the first of these files that there is, and why another could not be looked for.

    Raises:
      ValueError: there is no such repository or revision, or no permission to read it.
    """
    import huggingface_hub
    from huggingface_hub import errors

    found, unreachable = None, None
    try:
        for name in names:
            try:
                found = pathlib.Path(huggingface_hub.hf_hub_download(repo, name, revision=revision))
                break
            except errors.LocalEntryNotFoundError as error:  # offline: the next may be there
                unreachable = error
            except errors.EntryNotFoundError:
                pass
    except errors.GatedRepoError as error:
        raise ValueError(
            f"{repo} is gated: accept its terms at https://huggingface.co/{repo} and log in with "
            f"`hf auth login`, or {_ELSE}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ValueError(f"{repo} has no revision {revision!r} (branch, tag, commit)") from error
    except errors.RepositoryNotFoundError as error:
        raise ValueError(
            f"there is no repository {repo!r} on Hugging Face, or it is private and you are not "
            f"logged in (`hf auth login`)"
        ) from error
    return found, unreachable


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    """Makes of all that breaks a download a ConnectionError that says what was to be had."""
    from huggingface_hub import errors

    def broken(error: Exception) -> ConnectionError:
        reason = f"{type(error).__name__}: {error}"  # of some, only the name says anything
        return ConnectionError(f"{what} cannot be downloaded ({reason}); {_ELSE}")

    try:
        yield
    except (errors.HfHubHTTPError, OSError) as error:  # a bad request is a ValueError too
        raise broken(error) from error
    except (ImportError, ValueError):
        raise
    except Exception as error:  # of whatever library it downloads with: they share no base class
        raise broken(error) from error


def _commit(path: pathlib.Path) -> str | None:
    """Returns the commit in a path of the cache, <repository>/snapshots/<commit>/<file>."""
    parts = path.parts
    if "snapshots" not in parts[:-2]:
        return None
    return parts[len(parts) - 1 - parts[::-1].index("snapshots") + 1]


def _inside(path: pathlib.Path, commit: str | None) -> str:
    """Returns the path of a file inside its repository."""
    return "/".join(path.parts[path.parts.index(commit) + 1 :]) if commit else path.name
