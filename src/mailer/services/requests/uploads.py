"""Pin the uploads of a request to their versions at acceptance: objects that are put under the same keys later are not sent."""

from collections.abc import Callable

from mailer.domain.errors import Problem, RequestError
from mailer.domain.message import S3Object, SendRequest


def pin(send: SendRequest, version_of: Callable[[S3Object], str | None]) -> SendRequest:
    """Return the request with its uploads pinned; `version_of` looks one up, as `ports.Attachments.version` does.

    Raises:
        RequestError: attachment_missing or message_too_large, naming each attachment.
        DependencyError: as `version_of`.
    """
    versions: dict[int, str | None] = {}
    faults: list[tuple[str, Problem]] = []
    for at, ref in send.uploads.items():
        try:
            versions[at] = version_of(ref)
        except RequestError as refusal:
            faults += [(refusal.code, Problem(f"message.attachments[{at}].s3", problem.problem)) for problem in refusal.problems]
    if faults:
        raise RequestError([problem for _, problem in faults], faults[0][0])
    return send.pinned(versions)
