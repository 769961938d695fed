"""Load the uploads of a message as far as there is room for them: one that turns out to be large waits for more."""

from mailer.domain.message import S3Object
from mailer.domain.uploads import file_size, largest_file
from mailer.services.sending.jobs import Job, SendDependencies


class UploadLoader:
    """Loads the uploads of one message; with `room`, only as many as fit into so many bytes of raw message."""

    def __init__(self, job: Job, deps: SendDependencies, room: int | None = None) -> None:
        self._job = job
        self._deps = deps
        self._room = room

    def __call__(self, ref: S3Object) -> bytes:
        """Return an upload.

        Raises:
            LargerFileError: there is no room for it.
        """
        at_most = None if self._room is None else largest_file(self._room)
        octets = self._deps.attachments.fetch(self._job.tenant_id, ref, at_most=at_most)
        if self._room is not None:
            self._room -= file_size(len(octets))
        return octets
