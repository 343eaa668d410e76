"""What can go wrong in the model server, as classes. Raised by loading, codecs and handlers; caught by the worker."""


class LoadFailure(Exception):
    """The model cannot be served, and starting again will not help. The text is one line for people."""


class UnsupportedType(Exception):
    """No decoder for a content type (415), or no encoder for what the caller accepts (406)."""

    def __init__(self, media_type: str, status: int) -> None:
        super().__init__("Content type {} is not supported by this framework.".format(media_type or "(none)"))
        self.status = status


class UndecodableBody(Exception):
    """The body is not what its content type says."""
