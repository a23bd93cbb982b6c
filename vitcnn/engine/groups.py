"""The size of a group of images: one rule, in words that fit whatever needs the group."""


def check_group(group: int, images: int, what: str, least: int = 1) -> None:
    """Checks that groups of `group` images are large enough, and that there are so many images.

    Args:
      group: images of a group.
      images: images that there are.
      what: what needs the groups, as messages call it: "cka" or "config.analyses.cka".
      least: number of images that it needs in a group.

    Raises:
      ValueError: unless least <= group <= images.
    """
    if min(group, images) < least:
        raise ValueError(
            f"{what} needs groups of at least {least} images, but group = {group} and there are "
            f"{images} images"
        )
    if images < group:
        raise ValueError(
            f"group = {group}, but there are only {images} images for {what}; set group <= {images}"
        )
