"""Whether a store can be trusted with commits."""

import uuid

from photoz.artifacts.store import Store
from photoz.errors import BadInput


def check_conditional_create(store: Store) -> None:
    """Create one small object twice: the second must fail and leave the first one's bytes.

    Raises BadInput for a store that overwrites: two writers could then publish the same version.
    """
    key = f"probe/{uuid.uuid4().hex}"
    try:
        first, second = store.create(key, b"first"), store.create(key, b"second")
        kept = store.get(key)
    finally:
        store.delete(key)
    if not first or second or kept != b"first":
        raise BadInput(
            f"store {store.url}: overwrote an object in spite of If-None-Match: *; photoz needs conditional creates, "
            "as AWS S3, SeaweedFS and MinIO have them"
        )
