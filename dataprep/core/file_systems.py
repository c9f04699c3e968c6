"""URLs in, fsspec's file systems out. Servers and credentials are set where each protocol's package looks for them."""

from typing import Any

from dataprep.core.errors import first_line
from schemas.errors import InputError


def file_system(url: str) -> tuple[Any, str]:
    """The file system that a URL or a local path lies in, and the path there.

    Raises InputError where nothing knows its protocol, or a package is missing.
    """
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(url)
    except ImportError as error:
        packages = "pip install s3fs (S3), gcsfs (GCS), adlfs (Azure)"
        raise InputError(f"{url}: {first_line(error)}, as in: {packages}") from error
    except ValueError as error:
        raise InputError(f"{url}: {first_line(error)}; give http(s)://, s3://, gs://, … or a local path") from error
    return system, path
