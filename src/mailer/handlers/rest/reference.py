"""The API reference's texts for each field and parameter, and the examples of each body.

They become part of the OpenAPI document, from which docs/api.md is generated. They are separate from the models because only the function
that serves the document needs them.
"""

from collections.abc import Mapping
from typing import Any

from mailer.domain.errors import CODES
from mailer.domain.feedback_state import NO_CONFIGURATION_SET
from mailer.domain.lifecycle import SANDBOX_MAY_BE
from mailer.domain.onboarding import Platform, iam_policy, trust_policy

_WRITE_ONLY = "It is encrypted before it is stored, and no answer shows it."
_CONFIG = {
    "fromAddress": "Who the tenant's mail is from. `verify` sends its test mail from and to this address.",
    "fromName": "The name shown for it.",
}
_SES = {
    **_CONFIG,
    "region": "The AWS region of the tenant's SES account.",
    "configurationSet": "The SES configuration set of every mail; tags and SES's events need one.",
    "maxSendRate": "Recipients per second. Without it the account's own rate is queried, or learned.",
}
_SHOWN_CONFIG = {
    **_SES,
    "provider": "Which kind of provider it is.",
    "version": "Counts the configs that were stored; none is used twice.",
    "region": "The AWS region; null for SMTP.",
    "credentials": "The type `accessKey` with the end of the accessKeyId, or the type `role` with roleArn and externalId. These two"
    " are encrypted, and left out while KMS does not decrypt them. Secrets are never shown.",
    "feedback": "Whether SES's events of its mail arrive: `off` without a configuration set, `unproven` until the first one, `proven`,"
    " `silent` if it sent for an hour and none arrived.",
    "lastFeedbackAt": "When the last event of its mail arrived, to ten minutes.",
    "feedbackHint": "Who must do what for events to arrive; null if they do.",
    "simulation": "The last bounce and complaint that verify had SES simulate.",
}

_SUPPRESS = {
    "why": "Why it is to be suppressed.",
    "expiresAt": "Until when; left out: until it is lifted.",
}
_SUPPRESSION = {
    "email": "The address, in lower case, its domain in punycode.",
    "reason": "`hard_bounce`: the mailbox does not exist. `soft_bounces`: five requests with a soft bounce, without a delivery in between."
    " `complaint`: the recipient reported spam. `manual`: a caller requested it. `ses_list`: it is on the account's own list at SES.",
    "requestId": "The request whose mail caused it.",
    "at": "Since when.",
    "expiresAt": "Until when; not given if it is until it is lifted.",
    "by": "The ARN of the IAM identity that requested it.",
    "why": "The reason that was given.",
    "mayHaveComplained": "True if another recipient at the same domain may have complained.",
}

PARAMETERS: Mapping[str, str] = {
    "tenantId": "The tenant; a caller's IAM policy says for which it may ask.",
    "requestId": "The request, percent-encoded if necessary.",
    "Idempotency-Key": "The requestId, if the body has none; one that differs from the body's is refused.",
    "X-Correlation-Id": "Goes with the request to its record, logs, events and SES's tags. Left out: API Gateway's id of the call.",
    "status": "Only records that have this status now.",
    "limit": "How many entries a page has at most.",
    "cursor": "The `cursor` of the previous page, for the same list and status or reason.",
    "email": "The address, percent-encoded: `jo%40example.com`. It is compared in lower case, with its domain in punycode.",
    "reason": "Only addresses that are suppressed for this reason.",
    "why": "Why it is lifted.",
    "from": "Start of the range, at most 90 days ago, rounded down to the hour or day. Left out: 24 hours or 30 days.",
    "to": "End of the range, rounded up to the hour or day. Left out, or in the future: now.",
    "by": "Whether each bucket is an hour or a day, of UTC.",
}
"""What each parameter is, as it is written."""

_FIELDS: Mapping[str, Mapping[str, str]] = {
    "PostedRequest": {
        "tenantId": "The tenant that the mail is sent for. On the API it is that of the path and may be left out.",
        "requestId": "The idempotency key, unique within the tenant. On the API the header Idempotency-Key may give it; else one is made.",
        "onUnknown": "What to do if it is unknown whether SES accepted the mail: hold the request for an operator, or send it again.",
        "sendAt": "When to send it, at most 7 days ahead; a time that has passed means now.",
        "expiresAt": "When it ends as `failed: expired` unless it was sent: later than sendAt, at most 7 days after it (without sendAt:"
        " after it was accepted). Left out: 24 hours.",
        "message": "The mail.",
    },
    "EmailMessage": {
        "to": "Recipients. to, cc and bcc name 1 to 50 different ones together; duplicates are sent once.",
        "cc": "Recipients that all others see.",
        "bcc": "Recipients that others do not see: they are only in the envelope.",
        "replyTo": "Where replies go: a mailbox, or a list of them.",
        "subject": "Any Unicode text without control characters; may be empty.",
        "html": "The HTML body. At least one of html, text and an attachment is needed.",
        "text": "The plain text body.",
        "textFromHtml": "Whether the text is derived from html where none is given.",
        "calendar": "An iCalendar invite, sent as an alternative of the text.",
        "listUnsubscribe": "How to leave the list: the header List-Unsubscribe, and List-Unsubscribe-Post with oneClick (RFC 8058).",
        "headers": "Custom headers by name. Those that the service, SES or a relay writes are refused, as is any name given twice.",
        "tags": "SES message tags. They need a configuration set in the provider config. Names that begin with `tenantmail-` are reserved.",
        "attachments": "Files; with text, html and calendar at most 100 parts.",
    },
    "Mailbox": {
        "email": "An addr-spec (RFC 5321) with an ASCII local part; an international domain goes out in punycode.",
        "name": "The display name: any Unicode text without control characters.",
    },
    "Calendar": {
        "method": "The iTIP method (RFC 5546); the same as METHOD in the content, if that has one.",
        "content": "The iCalendar object (RFC 5545), from BEGIN:VCALENDAR on.",
    },
    "ListUnsubscribe": {
        "url": "An http(s) URL that unsubscribes. It or mailto is needed.",
        "mailto": "An address that unsubscribes, without `mailto:`; a query may follow.",
        "oneClick": "Whether a POST to url unsubscribes without further questions (RFC 8058); url must be https then.",
    },
    "Attachment": {
        "filename": "The name that the recipient sees. Extensions that SES blocks are refused.",
        "contentType": "The media type; guessed from the file name where it is left out.",
        "disposition": "Whether it is shown in the mail or as a file; the default is inline if it has a contentId.",
        "contentId": "What `cid:` in the HTML refers to, without < and >; different for each attachment.",
        "content": "The file in base64 (RFC 4648 §4), padded, without line breaks. Either this or s3.",
        "s3": "The file as it was uploaded before (POST …/attachments). Either this or content.",
    },
    "S3Object": {
        "key": "The key that the upload was given; it begins with the tenant's id.",
        "versionId": "The version that the upload answered in x-amz-version-id. Default: the current one when the request is accepted.",
    },
    "StatusRecord": {
        "tenantId": "The tenant.",
        "requestId": "The request.",
        "status": "`queued`: accepted, not tried yet. `deferred`: proven not sent, tried again at dueAt. `sending`: handed to SES now."
        " `sent`: SES accepted it. `failed`: proven not sent, error says why. `unknown`: SES may have accepted it. `cancelled`: withdrawn"
        " before it was sent.",
        "provider": "What it is sent by: `ses` or `smtp`.",
        "messageId": "SES's id of the mail, once it is `sent` and the id is known.",
        "attempts": "How often it was handed to SES.",
        "recipients": "How many different recipients it has.",
        "error": "Why it failed or waits; null if there is no error.",
        "createdAt": "When it was accepted first.",
        "updatedAt": "When the record was last changed.",
        "sentAt": "When SES accepted it.",
        "onUnknown": "What to do with an unknown: hold it for an operator, or send it again.",
        "feedback": "What SES reported since the mail was sent; null until its first report, and without feedback.",
        "suppressed": "How many of the recipients were left out, because they are suppressed for the tenant.",
        "dueAt": "When a deferred request is tried again, or an unknown is sent again; an unknown with dueAt has not ended.",
        "resolution": "How an operator resolved the unknown; only if one did.",
        "cancelledBy": "The ARN of the IAM identity that cancelled it; only if one did.",
    },
    "Feedback": {
        "delivered": "Recipients whose mail server accepted the mail. Each recipient is counted once, with the most significant status.",
        "delayed": "Recipients whose mail server has not accepted it yet; SES keeps retrying.",
        "bounced": "Recipients whose mail server rejected it permanently, or that are on SES's own suppression list.",
        "softBounced": "Recipients with a temporary delivery failure.",
        "complained": "Recipients who, or whose mailbox provider, reported it as spam.",
        "rejected": "Recipients of a mail in which SES found a virus after accepting it.",
        "firstAt": "When the first of these outcomes happened.",
        "lastAt": "When the last of them happened.",
    },
    "Error": {
        "code": "For programs; see the table of codes.",
        "message": "What happened, without recipients, bodies and secrets.",
        "retryable": "Whether the request can still go out unchanged: by itself, or once the tenant has fixed its account.",
        "hint": "Who must do what; begins with Caller, Tenant, Operator or Nobody.",
    },
    "ResolutionRecord": {
        "outcome": "What the operator said.",
        "by": "Whom the operator named.",
        "why": "The reason given.",
        "at": "When it was resolved.",
        "principal": "The ARN of the IAM identity that called.",
    },
    "FeedbackAnswer": {"recipients": "Recipients about whom SES has reported, by address; kept for 35 days after the last report."},
    "RecipientFeedbackRecord": {
        "email": "The recipient's address.",
        "status": "The most significant status that SES reported, in this order: `complained`, `bounced` permanently, `rejected` for a"
        " virus, `delivered`, `soft_bounced`, `delayed`. An out-of-office reply is a soft bounce that follows a delivery.",
        "at": "When that happened; the latest time, if it happened more than once.",
        "smtpStatus": "The enhanced status code (RFC 3463) of the receiving server; only if it gave one.",
        "diagnostic": "The receiving server's response, at most its first 500 bytes; only if SES reported one.",
    },
    "StatusPage": {"messages": "The records, newest first.", "cursor": "The cursor of the next page; null on the last."},
    "BatchAnswer": {
        "status": "The HTTP status that this request would have had by itself.",
        "replayed": "Whether an earlier call had put it on the queue.",
        "record": "Its record, if it was accepted.",
        "problem": "Why it was refused, if it was.",
    },
    "PreviewAnswer": {
        "mime": "The raw message, at most its first 1 MiB; null if a problem prevents building it.",
        "truncated": "Whether mime was cut.",
        "size": "Bytes of the whole message.",
        "problems": "What is wrong with the request; empty where it could be sent.",
    },
    "putSuppression": _SUPPRESS,
    "SuppressionBatchItem": {"email": "The address.", **_SUPPRESS},
    "SuppressionRecord": _SUPPRESSION,
    "LiftedSuppression": {**_SUPPRESSION, "sesList": "The state of SES's own list."},
    "SesListState": {
        "mayHold": "Whether the address may still be on the account's own suppression list at SES, in this spelling or another; SES would"
        " not send to it then.",
        "command": "The command that removes it there, to be run in the tenant's account; null if nothing is left to do.",
    },
    "SuppressionList": {
        "suppressions": "Suppressed addresses, newest first.",
        "cursor": "The cursor of the next page; null on the last.",
    },
    "SuppressionBatchAnswer": {
        "status": "The HTTP status that this address would have had by itself.",
        "record": "Why it is suppressed; not given if it was refused.",
        "problem": "Why it was refused.",
    },
    "ProblemDocument": {
        "type": "Always `about:blank`.",
        "title": "The HTTP status in words.",
        "status": "The HTTP status.",
        "code": "For programs; see the table of codes.",
        "detail": "What is wrong, in one line.",
        "hint": "Who must do what.",
        "errors": "Every fault of the request.",
    },
    "ProblemAt": {
        "path": "Where it is, as `message.to[0].email`; empty for the whole.",
        "problem": "What is allowed there; never the value.",
    },
    "uploadAttachment": {
        "filename": "The name that the attachment will have.",
        "contentType": "The media type, without parameters; guessed from the file name where it is left out.",
        "size": "Bytes of the file, exactly.",
        "sha256": "SHA-256 of the file, in hexadecimal; S3 then takes no other bytes.",
    },
    "UploadAnswer": {"upload": "The one request that uploads the file.", "s3": "What goes into the attachment; add the versionId."},
    "UploadTo": {
        "method": "The HTTP method.",
        "url": "The presigned URL. Anyone who has it may upload this one file.",
        "headers": "The headers to send, and no others.",
        "expiresAt": "When the URL expires.",
    },
    "UploadedAs": {"key": "The object's key."},
    "putProvider": {"provider": "The kind of provider; smtp on development stacks only.", "config": "The config."},
    "enableProvider": {
        "by": "Who resumes a provider that the reputation guard suspended; only together with why.",
        "why": "The reason: what was fixed.",
    },
    "verifyProvider": {
        "simulate": "Whether to mail SES's mailbox simulator too, for a bounce and a complaint; needs a configurationSet. Uses no quota"
        " and does not affect the reputation. The provider record shows which events arrived.",
    },
    "resolveMessage": {
        "outcome": "`sent`: it was sent. `resend`: send it again from its kept body.",
        "messageId": "SES's id of the mail, if known; only with `sent`.",
        "by": "Who says so.",
        "why": "The reason.",
    },
    "AccessKeyConfig": {
        **_SES,
        "accessKeyId": "The id of a long-term access key of an IAM user in the tenant's account.",
        "secretAccessKey": f"Its secret. {_WRITE_ONLY}",
    },
    "RoleConfig": {**_SES, "roleArn": "The role in the tenant's account that trusts this service with the tenant's ExternalId."},
    "SmtpConfig": {
        **_CONFIG,
        "host": "A host name or IP address.",
        "port": "The port.",
        "username": "Given with password, or not at all.",
        "password": _WRITE_ONLY,
        "tls": "How the connection is encrypted; true means starttls, false none.",
    },
    "ProviderRecord": {
        **_SHOWN_CONFIG,
        "status": "Whether it sends: `unverified` until verify passes, `disabled` by a call, `suspended` by the tenant's errors or"
        " by the reputation guard.",
        "sandbox": "Whether the SES account is in the sandbox, as far as SES tells.",
        "verifiedAt": "When verify passed last.",
        "updatedAt": "When it changed last.",
        "updatedBy": "The ARN of the IAM identity whose call changed it last; null where the service did, as in suspending it.",
        "warnings": "Warnings for the tenant, although verify passed.",
        "candidate": "A newer config that is not verified yet, beside the active one.",
        "error": "What suspended it, or why its first verify failed.",
        "resumption": "Who resumed it after the reputation guard suspended it, and why; only if somebody did.",
    },
    "Config": {**_SHOWN_CONFIG, "error": "Why its last verify failed."},
    "VerifyAnswer": {
        "messageId": "SES's id of the test mail.",
        "sandbox": "Whether the SES account is in the sandbox, as far as SES tells.",
        "warnings": "Warnings for the tenant, although verify passed.",
        "status": "The provider's status now: `active`, or `disabled` as before.",
        "version": "The version that was verified.",
        "simulated": "The mails to SES's simulator; null if none were requested.",
    },
    "SimulationRecord": {
        "startedAt": "When verify started it.",
        "bounceReportedAt": "When the event of the bounce arrived; null until then.",
        "complaintReportedAt": "When the event of the complaint arrived; null until then.",
    },
    "SimulatedMails": {
        "bounce": "The mail to bounce@simulator.amazonses.com.",
        "complaint": "The mail to complaint@simulator.amazonses.com.",
    },
    "SimulatedMail": {
        "messageId": "SES's id of the mail; null if it was not sent, or if that is not known.",
        "error": "Why there is no id. The config has passed nevertheless.",
    },
    "OnboardingAnswer": {
        "externalId": "What the role's trust policy must require.",
        "iamPolicy": "The rights of the IAM user or role: `ses:SendRawEmail`.",
        "trustPolicy": "Who may assume the role.",
        "cloudFormationTemplate": (
            "A CloudFormation template that creates the role, a configuration set and the rule that forwards SES's events,"
            " as the text of a JSON file."
        ),
        "quickCreateLink": "Opens the CloudFormation console with that template and this tenant's parameters; works for an hour at most.",
    },
}
_IN_A_LIST = (
    "The type `accessKey` with the end of the accessKeyId, or the type `role`, whose roleArn and externalId only GET …/provider shows."
)

FIELDS: Mapping[str, Mapping[str, str]] = {
    **_FIELDS,
    "ResumptionRecord": {
        "by": "Whom the caller named.",
        "why": "The reason given.",
        "at": "When it was resumed; what was counted by then is no longer judged.",
        "principal": "The ARN of the IAM identity that called.",
    },
    "StatisticsAnswer": {
        "buckets": "Each hour or day of the range, also those without counts.",
        "account": "The account that the tenant's provider sends from, which other tenants may share; null if it is not known.",
    },
    "AccountStatistics": {
        "account": "The AWS account's id.",
        "region": "The AWS region; SES judges each separately.",
        "buckets": "The counts of all tenants that send from there.",
    },
    "StatisticsBucket": {
        "from": "When it begins.",
        "sent": "Recipients whose mail SES accepted.",
        "delivered": "Of those sent: accepted by their server, without a hard bounce or complaint.",
        "bounced": "Of those sent: hard bounces, without those that SES did not send because of the account's own suppression list.",
        "softBounced": "Of those sent: soft bounces.",
        "complained": "Of those sent: reported as spam, without those that SES did not send because of the account's own suppression list.",
        "failed": "Recipients of requests that ended as `failed`.",
        "unknown": "Recipients of requests that are `unknown`.",
        "suppressed": "Recipients that were left out because they are on the tenant's suppression list.",
    },
    "TenantRecord": {**_FIELDS["ProviderRecord"], "tenantId": "The tenant.", "credentials": _IN_A_LIST},
    "TenantPage": {"tenants": "The tenants, by status and then by name.", "cursor": "The cursor of the next page; null on the last."},
}
"""Texts of the fields, by schema, or by operation if a body has no schema of its own."""

_MAIL = {
    "to": [{"email": "jo@example.com", "name": "Jo Ünger"}],
    "subject": "Your invoice",
    "html": "<p>Thank you.",
    "attachments": [{"filename": "invoice.pdf", "content": "JVBERi0xLjcK"}],
}
_WHOLE = {
    "tenantId": "acme",
    "requestId": "invoice-2026-0001",
    "onUnknown": "hold",
    "sendAt": "2026-11-25T08:00:00Z",
    "expiresAt": "2026-11-25T12:00:00Z",
    "message": {
        "to": [{"email": "jo@example.com", "name": "Jo Ünger"}],
        "cc": [],
        "bcc": [{"email": "archive@acme.example"}],
        "replyTo": [{"email": "billing@acme.example", "name": "Billing"}],
        "subject": "Your invoice",
        "html": '<p>Thank you.<img src="cid:logo">',
        "text": "Thank you.",
        "textFromHtml": True,
        "calendar": {"method": "PUBLISH", "content": "BEGIN:VCALENDAR\r\nMETHOD:PUBLISH\r\n…\r\nEND:VCALENDAR\r\n"},
        "listUnsubscribe": {"url": "https://acme.example/u/42", "mailto": "unsubscribe@acme.example", "oneClick": True},
        "headers": {"X-Campaign": "42"},
        "tags": {"campaign": "spring"},
        "attachments": [
            {"filename": "invoice.pdf", "contentType": "application/pdf", "disposition": "attachment", "content": "JVBERi0xLjcK"},
            {"filename": "logo.png", "contentId": "logo", "s3": {"key": "acme/5f0c", "versionId": "3HL4kqtJlcpXroDTDmJ"}},
        ],
    },
}
"""A send request with every field; its upload must exist, and its tags need a configuration set."""

_RECORD = {
    "tenantId": "acme",
    "requestId": "invoice-2026-0001",
    "status": "queued",
    "provider": "ses",
    "messageId": None,
    "attempts": 0,
    "recipients": 1,
    "error": None,
    "createdAt": "2026-11-24T10:00:00.000Z",
    "updatedAt": "2026-11-24T10:00:00.000Z",
    "sentAt": None,
    "onUnknown": "hold",
    "feedback": None,
    "suppressed": 0,
}
_SENT = {
    **_RECORD,
    "status": "sent",
    "messageId": "0100019391a1b2c3-example",
    "attempts": 1,
    "updatedAt": "2026-11-24T10:00:01.000Z",
    "sentAt": "2026-11-24T10:00:01.000Z",
    "feedback": {
        "delivered": 1,
        "delayed": 0,
        "bounced": 0,
        "softBounced": 0,
        "complained": 0,
        "rejected": 0,
        "firstAt": "2026-11-24T10:00:03.000Z",
        "lastAt": "2026-11-24T10:00:03.000Z",
    },
}
_CANCELLED = {**_RECORD, "status": "cancelled", "cancelledBy": "arn:aws:iam::123456789012:user/backend"}
_RESOLVED = {
    **_SENT,
    "resolution": {
        "outcome": "sent",
        "by": "sam",
        "why": "seen in the SES events",
        "at": "2026-11-24T11:00:00.000Z",
        "principal": "arn:aws:iam::123456789012:user/operator",
    },
}
PROBLEM = {
    "type": "about:blank",
    "title": "Bad Request",
    "status": 400,
    "code": "invalid_request",
    "detail": "message.subject: must not contain control characters or line separators",
    "hint": CODES["invalid_request"].hint,
    "errors": [{"path": "message.subject", "problem": "must not contain control characters or line separators"}],
}
_PROVIDER = {
    "provider": "ses",
    "status": "unverified",
    "version": 1,
    "region": "eu-central-1",
    "fromAddress": "billing@acme.example",
    "fromName": "Acme Billing",
    "credentials": {"type": "accessKey", "accessKeyId": "…MPLE"},
    "configurationSet": None,
    "maxSendRate": None,
    "feedback": "off",
    "lastFeedbackAt": None,
    "feedbackHint": NO_CONFIGURATION_SET,
    "simulation": None,
    "sandbox": "unknown",
    "verifiedAt": None,
    "updatedAt": "2026-11-24T10:00:00.000Z",
    "updatedBy": "arn:aws:iam::123456789012:user/manager",
    "warnings": [],
    "candidate": None,
    "error": None,
}
_ACTIVE = {**_PROVIDER, "status": "active", "verifiedAt": "2026-11-24T10:01:00.000Z", "warnings": [SANDBOX_MAY_BE]}
_EXTERNAL_ID = "b3fPzkV1w0mBq0mCzv3yD2Jr8kq5uQeX7hTn4sLgYc0"  # a random one
_PLATFORM = Platform("Leadmetrics", "aws", "123456789012", ("arn:aws:iam::123456789012:role/tenantmail-send",))

_BOUNCED = {"email": "jo@example.com", "reason": "hard_bounce", "requestId": "invoice-2026-0001", "at": "2026-11-24T10:00:05.000Z"}
_BY_HAND = {
    "email": "jo@example.com",
    "reason": "manual",
    "at": "2026-11-24T10:00:00.000Z",
    "by": "arn:aws:iam::123456789012:user/operator",
    "why": "asked us by phone to stop",
}
_NOT_A_DOMAIN = "must have a domain name with a dot: labels of 1 to 63 letters, digits and inner hyphens, no final dot, no IP address"
_NO_ADDRESS = {"detail": f"email: {_NOT_A_DOMAIN}", "errors": [{"path": "email", "problem": _NOT_A_DOMAIN}]}
_BUCKET = {
    "from": "2026-11-24T10:00:00.000Z",
    "sent": 200,
    "delivered": 197,
    "bounced": 2,
    "softBounced": 1,
    "complained": 0,
    "failed": 1,
    "unknown": 0,
    "suppressed": 3,
}

BODIES: Mapping[str, Any] = {
    "sendMessage": {"requestId": "invoice-2026-0001", "message": _MAIL},
    "sendBatch": [
        {"requestId": "invoice-2026-0001", "message": _MAIL},
        {"requestId": "invoice-2026-0002", "message": {**_MAIL, "subject": "Your\ninvoice"}},
    ],
    "previewMessage": {"requestId": "invoice-2026-0001", "message": _MAIL},
    "resolveMessage": {"outcome": "sent", "messageId": "0100019391a1b2c3-example", "by": "sam", "why": "seen in the SES events"},
    "enableProvider": {"by": "sam", "why": "the bought list is gone"},
    "verifyProvider": {"simulate": False},
    "uploadAttachment": {"filename": "report.pdf", "contentType": "application/pdf", "size": 5_242_880},
    "putSuppression": {"why": "asked us by phone to stop", "expiresAt": "2027-01-01T00:00:00Z"},
    "putSuppressions": [{"email": "sam@example.com", "why": "bounced in the old system"}, {"email": "sam@localhost", "why": "the same"}],
    "putProvider": {
        "provider": "ses",
        "config": {
            "accessKeyId": "AKIAIOSFODNN7EXAMPLE",
            "secretAccessKey": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",  # the key of AWS's own documentation
            "region": "eu-central-1",
            "fromAddress": "billing@acme.example",
            "fromName": "Acme Billing",
        },
    },
}
"""By operation: an example of the body that it takes."""

WHOLE: Mapping[str, Any] = {"sendMessage": _WHOLE}
"""By operation: an example of a body with every field there is."""

ANSWERS: Mapping[str, Any] = {
    "sendMessage": _RECORD,
    "sendBatch": [{"status": 202, "record": _RECORD}, {"status": 400, "problem": PROBLEM}],
    "previewMessage": {"mime": "From: Acme Billing <billing@acme.example>\r\n…", "truncated": False, "size": 2_310, "problems": []},
    "getStatistics": {
        "buckets": [_BUCKET],
        "account": {"account": "210987654321", "region": "eu-central-1", "buckets": [{**_BUCKET, "sent": 1204, "delivered": 1180}]},
    },
    "listMessages": {"messages": [_SENT], "cursor": None},
    "getMessage": _SENT,
    "getFeedback": {
        "recipients": [
            {
                "email": "jo@example.com",
                "status": "bounced",
                "at": "2026-11-24T10:00:03.000Z",
                "smtpStatus": "5.1.1",
                "diagnostic": "smtp; 550 5.1.1 user unknown",
            }
        ]
    },
    "cancelMessage": _CANCELLED,
    "resolveMessage": _RESOLVED,
    "uploadAttachment": {
        "upload": {
            "method": "PUT",
            "url": "https://bucket.s3.eu-central-1.amazonaws.com/acme/5f0c…?X-Amz-Signature=…",
            "headers": {"Content-Type": "application/pdf", "Content-Length": "5242880"},
            "expiresAt": "2026-11-24T10:15:00.000Z",
        },
        "s3": {"key": "acme/5f0c"},
    },
    "listSuppressions": {"suppressions": [_BOUNCED], "cursor": None},
    "getSuppression": _BOUNCED,
    "putSuppression": {**_BY_HAND, "expiresAt": "2027-01-01T00:00:00.000Z"},
    "deleteSuppression": {
        **_BOUNCED,
        "sesList": {
            "mayHold": True,
            "command": "aws sesv2 delete-suppressed-destination --email-address=jo@example.com --region eu-central-1",
        },
    },
    "putSuppressions": [
        {"status": 200, "record": {**_BY_HAND, "email": "sam@example.com", "why": "bounced in the old system"}},
        {"status": 400, "problem": {**PROBLEM, **_NO_ADDRESS}},
    ],
    "listTenants": {"tenants": [{**_ACTIVE, "tenantId": "acme"}], "cursor": None},
    "putProvider": _PROVIDER,
    "getProvider": _ACTIVE,
    "verifyProvider": {
        "messageId": "0100019391a1b2c3-example",
        "sandbox": "unknown",
        "warnings": [SANDBOX_MAY_BE],
        "status": "active",
        "version": 1,
        "simulated": None,
    },
    "disableProvider": {**_ACTIVE, "status": "disabled"},
    "enableProvider": _ACTIVE,
    "onboardProvider": {
        "externalId": _EXTERNAL_ID,
        "iamPolicy": iam_policy(None),
        "trustPolicy": trust_policy(_PLATFORM, _EXTERNAL_ID),
        "cloudFormationTemplate": '{"AWSTemplateFormatVersion": "2010-09-09", …}',
        "quickCreateLink": "https://eu-central-1.console.aws.amazon.com/cloudformation/home?region=eu-central-1#/stacks/create/review?…",
    },
}
"""By operation: an example of what it answers where it succeeds."""
