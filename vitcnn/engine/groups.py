"""The size of a group of images: one rule, in words that fit whatever needs the group."""

from typing import Any


def check_least(group: int, images: int, what: str, least: int, field: str = "group") -> None:
    """Checks that groups of `group` images are large enough.

    Args:
      group: images of a group; fewer if there are not so many.
      images: images that there are.
      what: what needs the groups, as messages call it: "cka" or "config.analyses.cka".
      least: number of images that it needs in a group.
      field: what messages call the size of a group.

    Raises:
      ValueError: unless least <= group and least <= images.
    """
    if min(group, images) < least:
        raise ValueError(
            f"{what} needs groups of at least {least} images, but {field} = {group} and there are "
            f"{images} images"
        )


def check_group(group: Any, images: int, what: str, least: int = 1, field: str = "group") -> int:
    """Returns the size of a group, after a check that there are so many images.

    Args:
      group, images, what, least, field: see `check_least`.

    Raises:
      TypeError: the size is not a whole number.
      ValueError: unless least <= group <= images.
    """
    try:
        size = None if isinstance(group, bool) else int(group.__index__())
    except (AttributeError, TypeError):
        size = None
    if size is None:
        raise TypeError(f"{field} = {group!r}: expected a whole number of images for {what}")
    check_least(size, images, what, least, field)
    if images < size:
        raise ValueError(
            f"{field} = {size}, but there are only {images} images for {what}; set {field} <= "
            f"{images}"
        )
    return size
