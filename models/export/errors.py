"""What the exporter can say no with; it stands alone, so that a mistake is found before torch has been loaded."""

from models.errors import ModelError

PICKLE_HINT = (
    "weights in a pickle (.bin, .pt) are not read, since a pickle runs code: where you trust it, load it with"
    " transformers' from_pretrained, write it with save_pretrained, and export that directory"
)


class ExportError(ModelError):
    """The checkpoint cannot be exported; one sentence and, where there is one, the next step."""
